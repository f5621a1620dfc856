use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
};

use opentelemetry::TraceFlags;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

use super::*;
use crate::export::tests::span;

/// A collector that gives these answers, one for each request. Its thread returns the bodies.
fn collector(answers: Vec<Vec<u8>>) -> (Otlp, std::thread::JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Destination {
        given: ("", String::new()),
        endpoint: format!("http://{}/v1/traces", listener.local_addr().unwrap()),
        headers: std::collections::HashMap::new(),
        timeout: Duration::from_secs(20),
        compression: None,
    };
    let otlp = Otlp::new(&settings, &Resource::builder_empty().build()).unwrap();
    let serve = move || answers.into_iter().map(|answer| receive(&listener, &answer)).collect();
    (otlp, std::thread::spawn(serve))
}

fn receive(listener: &TcpListener, answer: &[u8]) -> Vec<u8> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(answer).unwrap();
    body
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn a_refused_request_is_sent_again_as_it_is_and_partial_success_is_seen() {
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "too old".to_owned(),
        }),
    };
    let (mut otlp, bodies) = collector(vec![
        http("503 Busy\r\nRetry-After: 7", b""),
        http("500 Oh", b""),
        http("200 OK", &partial.encode_to_vec()),
        http("400 Bad", b""),
    ]);
    let batch = || vec![span(TraceFlags::SAMPLED); 2];
    let answer = otlp.send(batch());
    assert!(
        matches!(&answer, Answer::Refused { after: Some(after), answered: true, .. }
            if *after == Duration::from_secs(7)),
        "{answer:?}"
    );
    let answer = otlp.resend();
    assert!(
        matches!(&answer, Answer::Refused { after: None, answered: true, error }
            if error == "the collector answered 500 Internal Server Error"),
        "{answer:?}"
    );
    let answer = otlp.resend();
    assert!(
        matches!(&answer, Answer::Accepted { rejected: 3, message } if message == "too old"),
        "{answer:?}"
    );
    let answer = otlp.send(batch());
    assert!(matches!(&answer, Answer::Rejected { error } if error.contains("400")), "{answer:?}");
    let bodies = bodies.join().unwrap();
    assert!(!bodies[0].is_empty() && bodies[0] == bodies[1] && bodies[1] == bodies[2]);
    // Nobody listens any more.
    let answer = otlp.send(batch());
    assert!(
        matches!(&answer, Answer::Refused { answered: false, error, .. }
            if error.contains("refused")),
        "{answer:?}"
    );
}

/// Neither took the batch, although both seem to work.
#[test]
fn a_web_page_and_a_redirect_are_no_answers_of_a_collector() {
    let page = http("200 OK\r\nContent-Type: text/html; charset=utf-8", b"<!doctype html>");
    let redirect = http("302 Found\r\nLocation: /login", b"");
    let (mut otlp, bodies) = collector(vec![page, redirect]);
    for expected in
        ["the collector answered 200 OK with a web page", "the collector answered 302 Found"]
    {
        let answer = otlp.send(vec![span(TraceFlags::SAMPLED)]);
        assert!(matches!(&answer, Answer::Rejected { error } if error == expected), "{answer:?}");
    }
    bodies.join().unwrap();
}

#[test]
fn a_time_to_wait_is_seconds_or_a_date_and_bounded() {
    assert_eq!(retry_after(" 12 "), Some(Duration::from_secs(12)));
    assert_eq!(retry_after("3600"), Some(LONGEST));
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
    let time = retry_after(&date).unwrap();
    assert!((28..=30).contains(&time.as_secs()), "{time:?}");
    assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
    assert_eq!(retry_after("soon"), None);
}

#[test]
fn an_error_names_the_likely_cause() {
    let hint = |endpoint| with_hint("down".to_owned(), endpoint);
    assert!(hint("http://collector:4317/v1/traces").contains("4318"));
    assert!(hint("http://jaeger:16686/v1/traces").contains("4318"));
    assert!(hint("http://collector:4318/v1/traces/v1/traces").contains("leave it out"));
    assert!(hint("http://collector:4318/v1/metrics/v1/metrics").contains("leave it out"));
    assert_eq!(hint("http://collector:4318/v1/traces"), "down");
}
