//! A real Prometheus and its OTLP receiver: after a load with a kill, every query of the dashboard
//! returns what happened. With a Jaeger, its Monitor tab does too.

use std::{path::Path, process::Command};

use serde_json::Value;
use testkit::{
    Collector, Http, Line, Log, Mode, Process, Server, System, free_port,
    process::{self, executable_of, skipped},
    until,
};

use crate::{dashboard, monitor::Monitor};

/// Names the executable of Prometheus.
const PROMETHEUS: &str = "PROMETHEUS_BIN";

/// The deployment, whose options for Prometheus apply here too.
const COMPOSE: &str = include_str!("../../docker/metrics.yaml");

/// Flows that run while a process is killed.
const FLOWS: usize = 40;

/// A Prometheus.
struct Prometheus {
    process: Process,
    http: Http,
    address: String,
    log: Log,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    async fn start(executable: &Path) -> Self {
        let (folder, log) = (tempfile::tempdir().unwrap(), Log::new());
        let address = format!("127.0.0.1:{}", free_port());
        let data = folder.path().display();
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docker/metrics/prometheus.yaml");
        let options = COMPOSE.lines().filter_map(|line| line.strip_prefix("      - --"));
        let options = options.map(|option| match option.split_once('=') {
            Some(("config.file", _)) => format!("--config.file={root}"),
            Some(("storage.tsdb.path", _)) => format!("--storage.tsdb.path={data}"),
            Some(("storage.tsdb.retention.time", _)) => {
                "--storage.tsdb.retention.time=1d".to_owned()
            }
            _ => format!("--{option}"),
        });
        let mut command = Command::new(executable);
        command.args(options).arg(format!("--web.listen-address={address}"));
        let process = Process::start(&mut command, &log);
        let http = Http::new(&address);
        until(&log, "Prometheus to be ready", async || {
            (http.status("/-/ready").await == Some(200)).then_some(())
        })
        .await;
        Self { process, http, address, log, _folder: folder }
    }

    fn metrics_endpoint(&self) -> String {
        format!("http://{}/api/v1/otlp/v1/metrics", self.address)
    }

    /// The values that `query` returns now, with their labels.
    async fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let encoded: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = self.http.get(&format!("/api/v1/query?query={encoded}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        let result = answer.body["data"]["result"].as_array().unwrap().clone();
        let value = |row: &Value| row["value"][1].as_str().unwrap().parse().unwrap();
        result.iter().map(|row| (row["metric"].clone(), value(row))).collect()
    }

    async fn stop(mut self) {
        self.process.stop().await;
    }
}

/// What the values of a panel have to be after the load, each given as its sum.
fn is_expected(panel: &str, query: usize, sum: f64, values: usize) -> bool {
    match (panel, query) {
        ("Flows per second" | "HTTP requests" | "Spans exported", 0) => sum > 0.0,
        // One process of service-b is dead: it has no series any more, or an old one.
        ("Message streams", 0) => (18.0..=19.0).contains(&sum),
        ("Takeovers" | "Lost leases", 0) => sum >= 1.0,
        ("Step retries", 0) => sum >= 2.0,
        ("Poison", 0) => sum >= 1.0,
        // An await chain takes 16, and a longer one with steps more.
        ("Requests per flow", 0) => (10.0..100.0).contains(&sum),
        ("Requests to the Resonate Server", _) => sum > 0.0,
        // Poison is released several times before it is rejected. Nothing has to be fenced.
        ("Fenced and released runs", 0) => sum >= 4.0,
        ("Fenced and released runs", _) => values == 9,
        ("Active runs per instance", 0) => values >= 17,
        ("Spans lost", _) => sum == 0.0 && values >= 1,
        // Durations.
        _ => sum > 0.0 && sum.is_finite(),
    }
}

#[tokio::test]
async fn every_panel_of_the_dashboard_shows_what_happened() {
    let name = "every_panel_of_the_dashboard_shows_what_happened";
    let Some(executable) = executable_of(PROMETHEUS) else {
        skipped(name, &format!("{PROMETHEUS} is not set"));
        return;
    };
    let prometheus = Prometheus::start(Path::new(&executable)).await;
    let monitor = Monitor::start(&prometheus.address).await;
    let collector = Collector::start(free_port(), Mode::Accept);
    let spans = match &monitor {
        Some(monitor) => monitor.endpoint(),
        None => {
            skipped("Jaeger's Monitor tab", "JAEGER_BIN is not set");
            format!("{}/v1/traces", collector.endpoint())
        }
    };
    let settings = [
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &*prometheus.metrics_endpoint()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*spans),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
        ("NODE_LEASE", "2s"),
    ];
    let system = System::start(Server::Embedded, &settings).await;
    let http = system.http();
    // A rate needs a value before the load.
    let first = "count(resonate_run_takeovers_total) >= 18";
    let seen = async || (!prometheus.query(first).await.is_empty()).then_some(());
    until(&system.log, "the first values of all services", seen).await;

    load(&system, &http).await;
    outage(&system, &prometheus).await;
    // The run of the process that was killed is still counted as active until its last value is old.
    let killed = r#"resonate_run_active{instance="service-b"}"#;
    let gone = async || prometheus.query(killed).await.is_empty().then_some(());
    let panels = dashboard::panels("5m");
    assert!(panels.len() >= 15, "{}", panels.len());
    for panel in &panels {
        for (index, query) in panel.queries.iter().enumerate() {
            let what = format!("{}: {query}", panel.title);
            let check = async || {
                let values = prometheus.query(query).await;
                let sum = values.iter().map(|(_, value)| *value).sum::<f64>();
                is_expected(&panel.title, index, sum, values.len()).then_some((values.len(), sum))
            };
            let (count, sum) = until(&prometheus.log, &what, check).await;
            eprintln!("{}: {count} series, sum {sum:.3}", panel.title);
        }
    }
    let by = prometheus.query("resonate_lease_lost_total").await;
    assert!(
        by.iter().any(|(labels, _)| labels["resonate_lease_instance"] == "service-b"),
        "{by:?}"
    );
    until(&prometheus.log, "the end of the last values of a process that is gone", gone).await;
    if let Some(monitor) = monitor {
        for metric in ["calls", "latencies"] {
            for service in ["gateway", "service-b"] {
                monitor.expect(service, metric).await;
            }
        }
        // The lease that expired.
        monitor.expect("service-b", "errors").await;
        monitor.stop().await;
    }
    system.stop().await;
    prometheus.stop().await;
}

/// The Resonate Server is frozen, so that requests to it are repeated.
async fn outage(system: &System, prometheus: &Prometheus) {
    process::signal(system.pid("resonate"), "STOP");
    let frozen = async {
        let query = r#"http_client_request_duration_seconds_count{error_type="timeout"} > 0"#;
        let seen = async || (!prometheus.query(query).await.is_empty()).then_some(());
        until(&system.log, "a request without an answer", seen).await;
        process::signal(system.pid("resonate"), "CONT");
    };
    let http = system.http();
    let (answer, ()) = tokio::join!(http.post("/await-chain?id=outage"), frozen);
    assert!([200, 503].contains(&answer.status), "{}", answer.text);
}

/// Flows of all kinds, one of whose processes is killed, a step that is retried, and poison.
async fn load(system: &System, http: &Http) {
    let crash = async {
        let begun = |line: &Line| line.in_run("step started", "crash.0");
        system.log.line("the first step", begun).await;
        system.kill("service-b");
    };
    let flows = async {
        for n in 0..FLOWS {
            http.post(&format!("/await-chain?id=chain-{n}")).await.expect_message(3);
        }
        let fan_out = http.post("/fan-out-workflow?id=fan&fail=2").await;
        assert_eq!(fan_out.status, 200, "{}", fan_out.text);
        let detached = http.post("/detached-chain?id=detached").await;
        assert_eq!(detached.status, 200, "{}", detached.text);
    };
    let poison = async {
        let call = serde_json::json!({"data": wire::call::encode("nobody", &())});
        system.resonate().create("poison", "poll://any@service-c", call).await;
        until(&system.log, "the end of the poison", async || {
            system.resonate().settled("poison").await.then_some(())
        })
        .await;
    };
    let (answer, (), (), ()) =
        tokio::join!(http.post("/await-chain?id=crash&work=3s"), crash, flows, poison);
    answer.expect_message(3);
}
