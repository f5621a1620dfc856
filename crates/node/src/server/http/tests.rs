//! Credentials, against a server that looks at them.

use std::sync::{Arc, Mutex as StdMutex};

use axum::{
    Json, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use clap::{Args, FromArgMatches};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use wire::operation::Get;

use super::*;

/// The token that the server accepts, and how many requests it has refused.
#[derive(Clone, Default)]
struct Server(Arc<StdMutex<(String, usize)>>);

impl Server {
    fn accept(&self, token: &str) {
        *self.0.lock().unwrap() = (token.to_owned(), 0);
    }

    fn refused(&self) -> usize {
        self.0.lock().unwrap().1
    }

    fn accepts(&self, headers: &HeaderMap) -> bool {
        let mut state = self.0.lock().unwrap();
        let accepts = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes)
            == Some(format!("Bearer {}", state.0).as_bytes());
        state.1 += usize::from(!accepts);
        accepts
    }
}

/// Answers as the official server does: 403 to a token that is no good for the id.
async fn answer(
    State(server): State<Server>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> impl IntoResponse {
    let accepts = server.accepts(&headers);
    let in_head = body["head"]["auth"].as_str().map(|token| format!("Bearer {token}"));
    let header = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(in_head, header, "both have the token");
    let status = match (accepts, &body["data"]["id"]) {
        (false, _) => 401,
        (true, id) if *id == "foreign" => 403,
        (true, _) => 404,
    };
    let head = json!({"corrId": body["head"]["corrId"], "status": status});
    let answer = json!({"kind": body["kind"], "head": head, "data": "Not so"});
    (StatusCode::from_u16(status).unwrap(), Json(answer))
}

async fn stream(State(server): State<Server>, headers: HeaderMap) -> impl IntoResponse {
    match server.accepts(&headers) {
        true => ([(CONTENT_TYPE, "text/event-stream")], "data: x\n\n").into_response(),
        false => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// The client of a server, with these options.
async fn client(server: &Server, options: &[&str]) -> Http {
    let routes = Router::new().route("/", post(answer)).route("/poll/{group}/{id}", get(stream));
    let routes = routes.with_state(server.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let command = Config::augment_args(clap::Command::new("test"));
    let matches = command.get_matches_from(["test", "--server", &url].iter().chain(options));
    Http::new(&Config::from_arg_matches(&matches).unwrap()).unwrap()
}

async fn ask(http: &Http, id: &str) -> Result<u16, ExchangeError> {
    let answer = http.exchange(Request::new("promise.get", &Get { id: id.into() })).await?;
    Ok(answer.status())
}

#[tokio::test]
async fn a_token_is_read_again_from_its_file_when_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "s3cret-1\n").unwrap();
    let server = Server::default();
    let http = client(&server, &[&format!("--server-token-file={}", path.display())]).await;
    server.accept("s3cret-1");
    assert_eq!(ask(&http, "x").await, Ok(404));
    assert!(http.open_stream("g", "i").await.is_ok());
    assert_eq!(server.refused(), 0);

    // The server has another key, and the file a token that fits: one attempt is lost.
    for token in ["s3cret-2", "s3cret-3"] {
        server.accept(token);
        std::fs::write(&path, token).unwrap();
        match token {
            "s3cret-2" => assert_eq!(ask(&http, "x").await, Ok(404)),
            _ => assert!(http.open_stream("g", "i").await.is_ok()),
        }
        assert!(server.refused() <= 1, "{}", server.refused());
    }

    server.accept("s3cret-4");
    let both = async { tokio::join!(http.refused(), ask(&http, "x")) };
    let told = timeout(Duration::from_secs(5), both).await;
    let ((), answered) = told.expect("the message stream is told");
    let error = answered.unwrap_err();
    assert!(matches!(error, ExchangeError::Unauthorized { .. }), "{error:?}");
    let expected = format!("the token of {} is no JWT", path.display());
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    let Err(error) = http.open_stream("g", "i").await else { panic!("a stream") };
    assert!(matches!(error, ExchangeError::Unauthorized { .. }), "{error:?}");
    std::fs::write(&path, "s3cret-4").unwrap();
    assert_eq!(ask(&http, "x").await, Ok(404));
}

#[tokio::test]
async fn a_token_that_does_not_cover_an_id_is_an_answer() {
    let server = Server::default();
    server.accept("s3cret");
    let http = client(&server, &["--server-token=s3cret"]).await;
    assert_eq!(ask(&http, "foreign").await, Ok(403));
    assert_eq!(ask(&http, "x").await, Ok(404));
    assert!(http.forbidden.lock().unwrap().is_some(), "the log says so");
}

#[tokio::test]
async fn a_missing_token_is_named() {
    let server = Server::default();
    server.accept("s3cret");
    let http = client(&server, &[]).await;
    let error = ask(&http, "x").await.unwrap_err().to_string();
    assert!(error.ends_with("it asks for a token; set NODE_SERVER_TOKEN_FILE"), "{error}");
}

#[test]
fn a_certificate_that_is_not_trusted_names_the_setting() {
    let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    // As the connector gives it.
    let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, unknown));
    let expected = "invalid peer certificate: UnknownIssuer; \
                    NODE_SERVER_CA_FILE names the CA certificates to trust";
    assert_eq!(cause(&error), expected);
    assert_eq!(cause(&io::Error::other("no route")), "no route");
}

#[test]
fn credentials_are_sent() {
    let authorization = |url| headers(url).remove(AUTHORIZATION);
    assert_eq!(authorization("http://user:p%40ss@resonate:8001").unwrap(), "Basic dXNlcjpwQHNz");
    assert_eq!(authorization("http://resonate:8001"), None);
}
