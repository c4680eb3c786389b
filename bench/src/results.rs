//! What came out: one flat list of medians.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Row {
    pub bench: String,
    pub contestant: String,
    pub param: String,
    pub unit: String,
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// Which figure: bench, contestant, param, unit.
type Name = (String, String, String, String);

/// Every value of every round.
#[derive(Debug, Default)]
pub struct Results {
    order: Vec<Name>,
    values: BTreeMap<Name, Vec<f64>>,
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

impl Results {
    /// One round's value.
    pub fn add(&mut self, bench: &str, contestant: &str, param: &str, unit: &str, value: f64) {
        let name = (bench.into(), contestant.into(), param.into(), unit.into());
        let values = self.values.entry(name.clone()).or_default();
        if values.is_empty() {
            self.order.push(name);
        }
        values.push(value);
    }

    pub fn values(&self, bench: &str, contestant: &str, param: &str, unit: &str) -> Option<&[f64]> {
        self.values
            .get(&(bench.into(), contestant.into(), param.into(), unit.into()))
            .map(Vec::as_slice)
    }

    pub fn rows(&self) -> Vec<Row> {
        self.order
            .iter()
            .map(|name| {
                let values = &self.values[name];
                let (bench, contestant, param, unit) = name.clone();
                Row {
                    bench,
                    contestant,
                    param,
                    unit,
                    median: median(values),
                    min: values.iter().copied().fold(f64::INFINITY, f64::min),
                    max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                }
            })
            .collect()
    }

    /// Per round `a / b`, of figures of the same bench and param, as [median, min, max].
    pub fn ratio(
        &self,
        bench: &str,
        param: &str,
        unit: &str,
        a: &str,
        b: &str,
    ) -> Option<[f64; 3]> {
        let (a, b) = (self.values(bench, a, param, unit)?, self.values(bench, b, param, unit)?);
        let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
        let min = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let max = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some([median(&ratios), min, max])
    }
}

pub fn read(path: &Path) -> Vec<Row> {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

pub fn write(path: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    std::fs::write(path, format!("[\n{}\n]\n", lines.join(",\n")))?;
    Ok(())
}
