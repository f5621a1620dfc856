//! The dashboard of Grafana: what each panel asks for.

use serde_json::Value;

const DASHBOARD: &str = include_str!("../../docker/metrics/grafana/dashboards/flows.json");
const DATASOURCE: &str =
    include_str!("../../docker/metrics/grafana/provisioning/datasources/prometheus.yaml");

/// A panel.
pub struct Panel {
    pub title: String,
    pub queries: Vec<String>,
}

/// All panels that show something. `window` stands for the ranges that Grafana fills in.
///
/// # Panics
/// The dashboard is not what Grafana can show, as far as this can be told without it.
pub fn panels(window: &str) -> Vec<Panel> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().is_some() && dashboard["uid"].is_string());
    let uid = dashboard_datasource();
    let mut ids = Vec::new();
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        ids.push(panel["id"].as_u64().expect("an id"));
        let place = &panel["gridPos"];
        let [x, width] = ["x", "w"].map(|side| place[side].as_u64().unwrap());
        assert!(x + width <= 24, "{panel:#}");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], *uid, "{panel:#}");
        assert!(panel["description"].is_string(), "{panel:#}");
        let query = |target: &Value| {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", window).replace("$__range", window);
            assert!(!query.contains('$'), "{query}");
            query
        };
        panels.push(Panel {
            title: panel["title"].as_str().unwrap().to_owned(),
            queries: panel["targets"].as_array().unwrap().iter().map(query).collect(),
        });
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids of panels are unique");
    panels
}

fn dashboard_datasource() -> &'static str {
    let uid = DATASOURCE.lines().find_map(|line| line.trim().strip_prefix("uid: "));
    uid.expect("the uid of the data source")
}
