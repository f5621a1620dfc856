//! The table of all metrics in docs/metrics.md.

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/metrics.md");

/// A row of the table.
#[derive(Debug)]
pub struct Documented {
    pub name: &'static str,
    pub kind: &'static str,
    pub unit: &'static str,
    pub attributes: BTreeSet<&'static str>,
}

/// All rows.
pub fn all() -> Vec<Documented> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `")).map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, name, kind, unit, attributes, ..] = cells[..] else { panic!("cells: {row}") };
        let plain = |cell: &'static str| cell.trim_matches('`');
        let attributes = attributes.split(", ").map(plain).filter(|name| !name.is_empty());
        let attributes = attributes.collect();
        Documented { name: plain(name), kind, unit: plain(unit), attributes }
    });
    rows.collect()
}
