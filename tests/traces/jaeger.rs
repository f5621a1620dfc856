//! The three flows and a crash, read back from a real Jaeger that the launcher starts.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use testkit::{
    FLOWS, Http, Log, Server, System, flows,
    flows::Function,
    free_port,
    process::{self, executable_of, skipped},
    until,
};

/// Names the executable of Jaeger. If it is not set, the tests use the `jaeger` on PATH.
const JAEGER: &str = "JAEGER_BIN";

/// The menu of Jaeger's page.
const PAGE: &str = include_str!("../../otel/jaeger/ui/ui.json");

#[tokio::test]
async fn flows_and_a_crash_are_whole_traces_in_jaeger() {
    let Some((system, jaeger)) = start("flows_and_a_crash_are_whole_traces_in_jaeger", &[]).await
    else {
        return;
    };
    let http = system.http();
    let mut traces = BTreeSet::new();
    for flow in FLOWS {
        let answer = http.post(&format!("/{}", flow.name)).await;
        let trace = jaeger
            .trace(&answer.body, |trace| {
                flow.functions.iter().all(|function| {
                    trace.runs(function).next().is_some()
                        && trace.named(function.name).len() == 1
                        && trace.named(&format!("rpc {}", function.name)).len() == 1
                }) && trace.named(&format!("POST /{}", flow.name)).len() == 1
            })
            .await;
        trace.expect_whole();
        assert_eq!(trace.errors(), [""; 0], "{trace:#?}");
        traces.insert(trace.id);
    }
    let services = jaeger.http.get("/api/services").await.body;
    let services: BTreeSet<_> =
        services["data"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(services, flows::groups().chain(["gateway"]).collect());

    // The finished steps of service-b are in Jaeger while it works. Then it is killed in the middle
    // of a step.
    let answer = async { http.post("/await-chain?id=crash&work=5s").await };
    let crash = async {
        until(&system.log, "a finished step in Jaeger", async || {
            let found = jaeger.search("service=service-b&operation=work+2%2F5").await;
            (!found.is_empty()).then_some(())
        })
        .await;
        system.kill("service-b");
    };
    let (answer, ()) = tokio::join!(answer, crash);
    answer.expect_message(3);
    let started = system.log.all(|line| line.in_run("step started", "crash.0"));
    let last = started.iter().rfind(|line| line.instance() == "service-b").unwrap();
    let interrupted = last.field("step").unwrap().to_owned();

    let trace = jaeger
        .trace(&answer.body, |trace| {
            trace.named("POST /await-chain").len() == 1
                && flows::flow("await-chain").functions.iter().all(|function| {
                    trace.named(function.name).len() == 1
                        && trace.runs(function).any(|run| run.ended_as("fulfilled"))
                })
        })
        .await;
    trace.expect_whole();
    assert_eq!(trace.errors(), ["lease of service-b expired"], "{trace:#?}");
    let lost = trace.named("lease of service-b expired")[0];
    assert_eq!(lost.instance, "service-b-replica");
    let took_over = trace.spans.iter().filter(|span| span.attributes["resonate.takeover"] == true);
    let took_over: BTreeSet<_> = took_over.map(|span| span.name.as_str()).collect();
    assert_eq!(took_over, BTreeSet::from(["bar on service-b-replica", &interrupted]), "{trace:#?}");
    for step in (1..=5).map(|n| format!("work {n}/5")) {
        let spans = trace.named(&step);
        assert_eq!(spans.len(), 1, "{step}: {trace:#?}");
        let by = if step < interrupted { "service-b" } else { "service-b-replica" };
        assert_eq!(spans[0].instance, by, "{step}");
    }
    let again = trace.named(&interrupted)[0];
    assert!(
        again.start < lost.end && lost.end < again.end,
        "{again:#?} spans the end of {lost:#?}"
    );

    // The searches behind the links in the menu of Jaeger's page.
    let menu: Value = serde_json::from_str(PAGE).unwrap();
    let menu = menu["menu"].as_array().unwrap();
    let query = |link: &Value| {
        link["url"].as_str().unwrap().strip_prefix("/search?").expect("a search").to_owned()
    };
    let takeovers = menu.iter().find(|entry| entry["label"] == "Takeovers").unwrap();
    for link in takeovers["items"].as_array().unwrap() {
        let found = jaeger.search(&query(link)).await;
        let is_it = link["label"].as_str().unwrap().starts_with("service-b ");
        let expected = BTreeSet::from_iter(is_it.then(|| trace.id.clone()));
        assert_eq!(found, expected, "{link}");
    }
    traces.insert(trace.id);
    let flows = menu.iter().find(|entry| entry["label"] == "Flows").unwrap();
    assert_eq!(jaeger.search(&query(flows)).await, traces);
    system.stop().await;
}

#[tokio::test]
async fn jaeger_ends_with_a_launcher_that_was_killed() {
    let name = "jaeger_ends_with_a_launcher_that_was_killed";
    let Some((system, jaeger)) = start(name, &["--replicas", "1"]).await else { return };
    let pid = system.pid("jaeger");
    let command = process::command_line(pid);
    let configuration = command.split(' ').find(|word| word.ends_with("jaeger.yaml")).unwrap();
    let folder = Path::new(configuration).parent().unwrap();
    assert!(folder.is_dir() && process::runs(pid), "{command}");
    process::signal(system.launcher_pid(), "KILL");
    until(&system.log, "the end of all processes", async || {
        (process::left(&system.log).is_empty() && !folder.exists()).then_some(())
    })
    .await;
    assert_eq!(jaeger.http.status("/").await, None);
    system.stop().await;
}

/// A system with a Jaeger. `None` if there is no Jaeger: says that `test` is skipped.
async fn start(test: &str, options: &[&str]) -> Option<(System, Jaeger)> {
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("jaeger")).find(|path| path.is_file())
    };
    let Some(executable) = executable_of(JAEGER).map(PathBuf::from).or_else(on_path) else {
        skipped(test, &format!("{JAEGER} is not set, and there is no jaeger on PATH"));
        return None;
    };
    let (page, otlp) = (free_port().to_string(), free_port().to_string());
    let executable = executable.to_str().unwrap();
    let ports = ["--jaeger-port", &page, "--otlp-port", &otlp];
    let options = [&["--jaeger", executable], &ports[..], options].concat();
    // Nothing in the environment of the tests may send the spans elsewhere.
    let settings = ["ENDPOINT", "TRACES_ENDPOINT"].map(|it| format!("OTEL_EXPORTER_OTLP_{it}"));
    let settings: Vec<_> = settings.iter().map(|name| (name.as_str(), "")).collect();
    let system = System::start_with(Server::Embedded, &settings, &options).await;
    let address = format!("127.0.0.1:{page}");
    let line = format!("Jaeger:          http://{address} ");
    system.log.line("the address of Jaeger", |it| it.text.starts_with(&line)).await;
    let (log, http) = (system.log.clone(), Http::new(&address));
    Some((system, Jaeger { log, http, address }))
}

/// A client of Jaeger's query API.
struct Jaeger {
    log: Log,
    http: Http,
    address: String,
}

impl Jaeger {
    /// The trace that the answer of a flow names, once it `is_complete`.
    async fn trace(&self, answer: &Value, is_complete: impl Fn(&Trace) -> bool) -> Trace {
        let id = answer["trace_id"].as_str().unwrap_or_else(|| panic!("no trace: {answer}"));
        assert_eq!(answer["trace_url"], format!("http://{}/trace/{id}", self.address));
        let trace = until(&self.log, &format!("all of trace {id} in Jaeger"), async || {
            let answer = self.http.get(&format!("/api/v3/traces/{id}")).await;
            let trace = Trace::new(id, &answer.body);
            is_complete(&trace).then_some(trace)
        })
        .await;
        self.expect_one_clock(id).await;
        trace
    }

    /// Asserts that the page warns of no clock skew. A warning about a missing parent is no error:
    /// Jaeger repeats it if somebody asked for the trace before all of it had arrived.
    async fn expect_one_clock(&self, trace: &str) {
        let answer = self.http.get(&format!("/api/traces/{trace}")).await;
        let spans = answer.body["data"][0]["spans"].as_array().expect("a trace with spans");
        for span in spans {
            let warnings = span["warnings"].as_array().into_iter().flatten();
            let about_time = warnings.filter(|text| text.as_str().unwrap().contains("delta of"));
            assert_eq!(about_time.count(), 0, "{}: {}", span["operationName"], span["warnings"]);
        }
    }

    /// The ids of the traces that a search finds, as the page's search form does it.
    async fn search(&self, query: &str) -> BTreeSet<String> {
        let answer = self.http.get(&format!("/api/traces?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let traces = answer.body["data"].as_array().unwrap().iter();
        traces.map(|trace| trace["traceID"].as_str().unwrap().to_owned()).collect()
    }
}

#[derive(Debug)]
struct Trace {
    id: String,
    spans: Vec<Span>,
}

#[derive(Debug)]
struct Span {
    service: String,
    instance: String,
    name: String,
    id: String,
    parent: Option<String>,
    start: u64,
    end: u64,
    is_error: bool,
    attributes: Value,
}

impl Trace {
    /// Reads OTLP in JSON. A trace that Jaeger does not know yet has no spans.
    fn new(id: &str, body: &Value) -> Self {
        let list = |of: &Value, name: &str| of[name].as_array().cloned().unwrap_or_default();
        let attributes = |of: &Value| {
            let pairs = list(of, "attributes").into_iter().map(|pair| {
                let value = pair["value"].as_object().and_then(|value| value.values().next());
                (pair["key"].as_str().unwrap().to_owned(), value.cloned().unwrap_or_default())
            });
            Value::Object(pairs.collect())
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let time = |value: &Value| value.as_str().and_then(|nanos| nanos.parse().ok()).unwrap();
        let mut spans = Vec::new();
        for resource in list(&body["result"], "resourceSpans") {
            let of = attributes(&resource["resource"]);
            let scopes = list(&resource, "scopeSpans");
            for span in scopes.iter().flat_map(|scope| list(scope, "spans")) {
                assert_eq!(span["traceId"], id);
                spans.push(Span {
                    service: text(&of["service.name"]),
                    instance: text(&of["service.instance.id"]),
                    name: text(&span["name"]),
                    id: text(&span["spanId"]),
                    parent: span["parentSpanId"].as_str().map(str::to_owned),
                    start: time(&span["startTimeUnixNano"]),
                    end: time(&span["endTimeUnixNano"]),
                    is_error: span["status"]["code"] == json!(2),
                    attributes: attributes(&span),
                });
            }
        }
        Self { id: id.to_owned(), spans }
    }

    fn named(&self, name: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.name == name).collect()
    }

    /// The runs of a function.
    fn runs(&self, function: &Function) -> impl Iterator<Item = &Span> {
        let (group, start) = (function.group, format!("{} on {}", function.name, function.group));
        let matches = move |span: &&Span| span.service == group && span.name.starts_with(&start);
        self.spans.iter().filter(matches)
    }

    fn errors(&self) -> Vec<&str> {
        self.spans.iter().filter(|span| span.is_error).map(|span| span.name.as_str()).collect()
    }

    /// Asserts that this is one tree: its root is the span of the flow, every other span has its
    /// parent, and no span exists twice.
    #[track_caller]
    fn expect_whole(&self) {
        let by_id: HashMap<_, _> = self.spans.iter().map(|span| (&span.id, span)).collect();
        assert_eq!(by_id.len(), self.spans.len(), "a span exists twice in {self:#?}");
        let roots: Vec<_> = self.spans.iter().filter(|span| span.parent.is_none()).collect();
        assert_eq!(roots.len(), 1, "roots of {self:#?}");
        assert!(roots[0].attributes["resonate.flow"] == roots[0].name, "{:#?}", roots[0]);
        assert_eq!(roots[0].service, "gateway");
        let parents: HashSet<_> =
            self.spans.iter().filter_map(|span| span.parent.as_ref()).collect();
        for parent in parents {
            assert!(by_id.contains_key(parent), "no parent {parent} in {self:#?}");
        }
    }
}

impl Span {
    fn ended_as(&self, outcome: &str) -> bool {
        self.attributes["resonate.run.outcome"] == outcome
    }
}
