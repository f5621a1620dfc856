// One process of the three flows on the Resonate Go SDK: `peer gateway`, or `peer service-a`.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"

	resonate "github.com/resonatehq/resonate-sdk-go"
	"github.com/resonatehq/resonate-sdk-go/httpnet"
)

type none struct{}

// The await chain.
func foo(ctx *resonate.Context, _ none) (int, error) {
	return call(ctx, "bar", "service-b")
}

func bar(ctx *resonate.Context, _ none) (int, error) {
	return call(ctx, "baz", "service-c")
}

func baz(_ *resonate.Context, _ none) (int, error) {
	return 1, nil
}

// call awaits a function and adds 1 to its result.
func call(ctx *resonate.Context, function, target string) (int, error) {
	future, err := ctx.RPC(function, none{}, resonate.RPCOpts{Target: target})
	if err != nil {
		return 0, err
	}
	var n int
	if err := future.Await(&n); err != nil {
		return 0, err
	}
	return n + 1, nil
}

// The detached chain.
func qux(ctx *resonate.Context, n int) (none, error) {
	_, err := ctx.Detached("quz", n+1, resonate.DetachedOpts{Target: "service-e"})
	return none{}, err
}

func quz(ctx *resonate.Context, n int) (none, error) {
	_, err := ctx.Detached("cog", n+1, resonate.DetachedOpts{Target: "service-f"})
	return none{}, err
}

func cog(_ *resonate.Context, n int) (none, error) {
	fmt.Println(n)
	return none{}, nil
}

// The fan-out workflow.
func zim(ctx *resonate.Context, n int) (int, error) {
	first, err := ctx.RPC("rax", none{}, resonate.RPCOpts{Target: "service-h"})
	if err != nil {
		return 0, err
	}
	second, err := ctx.RPC("dop", none{}, resonate.RPCOpts{Target: "service-i"})
	if err != nil {
		return 0, err
	}
	for _, future := range []*resonate.Future{first, second} {
		var result int
		if err := future.Await(&result); err != nil {
			return 0, err
		}
		n += result
	}
	return n, nil
}

func rax(_ *resonate.Context, _ none) (int, error) {
	return 1, nil
}

func dop(_ *resonate.Context, _ none) (int, error) {
	return 1, nil
}

func register(r *resonate.Resonate, service string) error {
	var err error
	switch service {
	case "service-a":
		_, err = resonate.Register(r, "foo", foo)
	case "service-b":
		_, err = resonate.Register(r, "bar", bar)
	case "service-c":
		_, err = resonate.Register(r, "baz", baz)
	case "service-d":
		_, err = resonate.Register(r, "qux", qux)
	case "service-e":
		_, err = resonate.Register(r, "quz", quz)
	case "service-f":
		_, err = resonate.Register(r, "cog", cog)
	case "service-g":
		_, err = resonate.Register(r, "zim", zim)
	case "service-h":
		_, err = resonate.Register(r, "rax", rax)
	case "service-i":
		_, err = resonate.Register(r, "dop", dop)
	default:
		err = fmt.Errorf("no such service: %s", service)
	}
	return err
}

// gateway answers the three routes.
func gateway(r *resonate.Resonate) http.Handler {
	start := func(req *http.Request, function, target string, args any) (*resonate.Handle, error) {
		id := req.URL.Query().Get("id")
		return r.RPC(req.Context(), id, function, args, resonate.RPCOptions{Target: target})
	}
	await := func(function, target string, args any) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			handle, err := start(req, function, target, args)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			n, err := resonate.ResultOf[int](req.Context(), handle)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			answer(w, n)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /await-chain", await("foo", "service-a", none{}))
	mux.HandleFunc("POST /fan-out-workflow", await("zim", "service-g", 1))
	mux.HandleFunc("POST /detached-chain", func(w http.ResponseWriter, req *http.Request) {
		if _, err := start(req, "qux", "service-d", 1); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, "detached-chain started")
	})
	return mux
}

func answer(w http.ResponseWriter, message any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"message": message})
}

func main() {
	name := os.Args[1]
	network := httpnet.NewHTTP(os.Getenv("RESONATE_URL"), httpnet.HTTPOptions{Group: name})
	r, err := resonate.New(resonate.Config{Network: network})
	if err != nil {
		log.Fatal(err)
	}
	if name == "gateway" {
		log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), gateway(r)))
	}
	if err := register(r, name); err != nil {
		log.Fatal(err)
	}
	<-context.Background().Done()
}
