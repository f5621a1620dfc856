//! Jaeger's Monitor tab, as the deployment with docker/metrics.yaml configures it.

use std::{
    path::PathBuf,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use testkit::{Http, Log, Process, free_port, process::executable_of, until};

/// Names the executable of Jaeger.
const JAEGER: &str = "JAEGER_BIN";

/// A Jaeger that counts its spans into a Prometheus.
pub struct Monitor {
    process: Process,
    http: Http,
    otlp: u16,
    log: Log,
}

impl Monitor {
    /// Starts a Jaeger, if there is one.
    pub async fn start(prometheus: &str) -> Option<Self> {
        let executable = executable_of(JAEGER)?;
        let (page, otlp, log) = (free_port(), free_port(), Log::new());
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let mut command = Command::new(executable);
        command
            .current_dir(&root)
            .args(["--config", "otel/jaeger/jaeger.yaml"])
            .args(["--config", "otel/jaeger/monitor/monitor.yaml"])
            .env("JAEGER_UI_CONFIG", "otel/jaeger/monitor/ui/ui.json")
            .env("JAEGER_PROMETHEUS_URL", format!("http://{prometheus}"))
            .env("JAEGER_SPAN_METRICS", "500ms")
            .env("JAEGER_PAGE_PORT", page.to_string())
            .env("JAEGER_OTLP_HTTP_PORT", otlp.to_string())
            .envs(["JAEGER_OTLP_GRPC_PORT", "JAEGER_QUERY_GRPC_PORT"].map(|port| (port, "0")));
        let process = Process::start(&mut command, &log);
        let http = Http::new(&format!("127.0.0.1:{page}"));
        until(&log, "Jaeger to be ready", async || {
            (http.status("/api/services").await == Some(200)).then_some(())
        })
        .await;
        Some(Self { process, http, otlp, log })
    }

    /// Where it takes spans.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/v1/traces", self.otlp)
    }

    /// Waits until the tab has values above zero for the spans of `service`: calls, or their durations.
    pub async fn expect(&self, service: &str, metric: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let kinds =
            ["server", "consumer", "internal", "producer"].map(|it| format!("&spanKind={it}"));
        let query = format!(
            "/api/metrics/{metric}?service={service}&quantile=0.95&endTs={}&lookback=600000\
             &step=5000&ratePer=600000{}",
            now + 60_000,
            kinds.concat()
        );
        until(&self.log, &format!("{metric} of {service}"), async || {
            let answer = self.http.get(&query).await;
            assert_eq!(answer.status, 200, "{query}: {}", answer.text);
            let metrics = answer.body["metrics"].as_array().cloned().unwrap_or_default();
            let points = metrics
                .iter()
                .flat_map(|metric| metric["metricPoints"].as_array().cloned().unwrap_or_default());
            let value = |point: serde_json::Value| point["gaugeValue"]["doubleValue"].as_f64();
            points.filter_map(value).find(|value| *value > 0.0)
        })
        .await;
    }

    /// Stops it.
    pub async fn stop(mut self) {
        self.process.stop().await;
    }
}

/// The page of the Monitor tab differs from the usual one by the tab only.
#[test]
fn the_page_differs_by_its_tab_only() {
    let read = |path: &str| -> serde_json::Value {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        serde_json::from_str(&std::fs::read_to_string(format!("{root}/{path}")).unwrap()).unwrap()
    };
    let (mut usual, monitor) =
        (read("otel/jaeger/ui/ui.json"), read("otel/jaeger/monitor/ui/ui.json"));
    assert_eq!(usual["monitor"]["menuEnabled"], false);
    usual["monitor"]["menuEnabled"] = true.into();
    assert_eq!(usual, monitor);
}
