//! Metrics as the collector receives them.

use std::time::SystemTime;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        AggregationTemporality, Metric, NumberDataPoint, metric::Data, number_data_point::Value,
    },
};

use crate::span::{Attributes, attributes};

/// One value of a metric.
#[derive(Debug, Clone)]
pub struct Point {
    /// The name of the metric.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Its description.
    pub description: String,
    /// `counter`, `up-down counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The attributes.
    pub attributes: Attributes,
    /// The value; of a histogram the number of values.
    pub value: f64,
    /// Of a histogram, the sum of its values.
    pub sum: f64,
    /// The attributes of the resource.
    pub resource: Attributes,
    /// The name of the instrumentation scope.
    pub scope: String,
    /// When it arrived.
    pub arrived: SystemTime,
}

impl Point {
    /// `service.instance.id`.
    pub fn instance(&self) -> &str {
        &self.resource["service.instance.id"]
    }

    /// An attribute; empty if it is absent.
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Whether both are values of the same series.
    pub(crate) fn is_same_series(&self, other: &Self) -> bool {
        self.name == other.name
            && self.attributes == other.attributes
            && self.resource == other.resource
    }
}

/// The values in an export request.
///
/// # Panics
/// A counter or histogram is not cumulative.
pub(crate) fn read_all(request: ExportMetricsServiceRequest, arrived: SystemTime) -> Vec<Point> {
    let mut all = Vec::new();
    for of_resource in request.resource_metrics {
        let resource = attributes(of_resource.resource.unwrap_or_default().attributes);
        for of_scope in of_resource.scope_metrics {
            let scope = of_scope.scope.unwrap_or_default().name;
            for metric in of_scope.metrics {
                for mut point in read(metric) {
                    point.resource = resource.clone();
                    point.scope.clone_from(&scope);
                    point.arrived = arrived;
                    all.push(point);
                }
            }
        }
    }
    all
}

fn read(metric: Metric) -> Vec<Point> {
    let base = |kind| Point {
        name: metric.name.clone(),
        unit: metric.unit.clone(),
        description: metric.description.clone(),
        kind,
        attributes: Attributes::new(),
        value: 0.0,
        sum: 0.0,
        resource: Attributes::new(),
        scope: String::new(),
        arrived: SystemTime::UNIX_EPOCH,
    };
    let number = |kind, point: NumberDataPoint| Point {
        attributes: attributes(point.attributes),
        value: match point.value.expect("a value") {
            Value::AsDouble(value) => value,
            Value::AsInt(value) => value as f64,
        },
        ..base(kind)
    };
    let cumulative = |temporality: i32| {
        assert_eq!(temporality, AggregationTemporality::Cumulative as i32, "{}", metric.name);
    };
    match metric.data.clone().expect("data") {
        Data::Gauge(gauge) => {
            gauge.data_points.into_iter().map(|point| number("gauge", point)).collect()
        }
        Data::Sum(sum) => {
            cumulative(sum.aggregation_temporality);
            let kind = if sum.is_monotonic { "counter" } else { "up-down counter" };
            sum.data_points.into_iter().map(|point| number(kind, point)).collect()
        }
        Data::Histogram(histogram) => {
            cumulative(histogram.aggregation_temporality);
            let point =
                |point: opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint| Point {
                    attributes: attributes(point.attributes),
                    value: point.count as f64,
                    sum: point.sum.unwrap_or_default(),
                    ..base("histogram")
                };
            histogram.data_points.into_iter().map(point).collect()
        }
        other => panic!("{}: {other:?}", metric.name),
    }
}
