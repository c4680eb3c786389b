//! Tables in Markdown.

use crate::results::Row;
use crate::runs::scaling::{BATCHES, PATTERNS, SHARDS};
use crate::targets::Target;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "–".into(),
        size if size >= 1e6 => format!("{:.1} M", value / 1e6),
        size if size >= 1e5 => format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A name in Markdown, which takes `<Vec>` for a tag.
fn escaped(name: &str) -> String {
    name.replace('<', "\\<")
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// Machine, toolchain, command.
pub fn circumstances() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let mut arguments = std::env::args();
    arguments.next();
    format!(
        "- machine: {} (family {}, model {}), {cores} logical processors, {} {}\n- toolchain: {}\n\
         - command: `cargo run --release -p batchlink-bench -- {}`\n",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        output("uname", &["-s"]),
        output("uname", &["-r"]),
        output("rustc", &["--version"]),
        arguments.collect::<Vec<_>>().join(" "),
    )
}

/// One table for each bench and unit: contestants down, params across.
pub fn tables(rows: &[Row]) -> String {
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        if !groups.contains(&(&row.bench, &row.unit)) {
            groups.push((&row.bench, &row.unit));
        }
    }
    let mut text = String::new();
    for (bench, unit) in groups {
        if bench == "scaling" {
            text += &scaling(rows, unit);
            continue;
        }
        let of: Vec<&Row> =
            rows.iter().filter(|row| row.bench == bench && row.unit == unit).collect();
        let mut params: Vec<&str> = Vec::new();
        for row in &of {
            if !params.contains(&row.param.as_str()) {
                params.push(&row.param);
            }
        }
        for params in chunks(&params) {
            let _ = writeln!(text, "## {bench}, {unit}\n");
            text += &table(&of, &params);
            text.push('\n');
        }
    }
    text
}

/// For each pattern batches down and shards across.
fn scaling(rows: &[Row], unit: &str) -> String {
    let mut text = String::new();
    for pattern in PATTERNS {
        let _ = writeln!(text, "## scaling, {unit}, {}\n", pattern.name());
        let _ = writeln!(
            text,
            "| batch \\\\ shards | {} |",
            SHARDS.map(|shards| shards.to_string()).join(" | ")
        );
        let _ = writeln!(text, "|--:|{}", "--:|".repeat(SHARDS.len()));
        for batch in BATCHES {
            let _ = write!(text, "| {batch} |");
            for shards in SHARDS {
                let param = format!("{shards} shards, batch {batch}");
                let row = rows.iter().find(|row| {
                    row.contestant == pattern.name() && row.unit == unit && row.param == param
                });
                let _ = write!(text, " {} |", row.map_or("–".into(), |row| number(row.median)));
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// Up to six columns that belong together: wider tables do not read well.
fn chunks<'a>(params: &[&'a str]) -> Vec<Vec<&'a str>> {
    // "512, unique, trace state" belongs to "trace state", "timeout late by, p50" to "timeout late
    // by".
    let family = |param: &str| match param.rsplit_once(", ") {
        Some((head, tail)) if tail.starts_with('p') || tail == "max" => head.to_owned(),
        Some((_, tail)) if !tail.contains("unique") && !tail.contains('%') => tail.to_owned(),
        _ => String::new(),
    };
    let families = params.chunk_by(|a, b| family(a) == family(b));
    families.flat_map(|family| family.chunks(6)).map(<[&str]>::to_vec).collect()
}

fn table(rows: &[&Row], params: &[&str]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| params.contains(&row.param.as_str())) {
        if !names.contains(&row.contestant.as_str()) {
            names.push(&row.contestant);
        }
    }
    let mut text = format!("| | {} |\n|---|{}\n", params.join(" | "), "--:|".repeat(params.len()));
    for name in names {
        let _ = write!(text, "| {} |", escaped(name));
        for param in params {
            let row = rows.iter().find(|row| row.contestant == name && row.param == *param);
            let _ = write!(text, " {} |", row.map_or("–".into(), |row| number(row.median)));
        }
        text.push('\n');
    }
    text
}

pub fn targets(targets: &[Target]) -> String {
    let mut text = String::from(
        "| what | against | target | measured | rounds | reached |\n|---|---|--:|--:|--:|---|\n",
    );
    for Target { what, against, target, measured, range, reached } in targets {
        let measured = measured.map_or("not in this run".into(), number);
        let range =
            range.map_or(String::new(), |(min, max)| format!("{} – {}", number(min), number(max)));
        let reached = match reached {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {target} | {measured} | {range} | {reached} |",
            escaped(what),
            escaped(against)
        );
    }
    text
}

/// What BENCHMARKS.md shows: heading, bench, param, unit.
const SUMMARY: [(&str, &str, &str, &str); 6] = [
    ("push", "push", "512", "ns/context"),
    ("cycle", "cycle", "512, unique", "ns/context"),
    ("trace state", "cycle", "512, unique, trace state", "ns/context"),
    ("8 producers", "contention", "8 producers", "contexts/s"),
    ("full", "contention", "8 producers, drops", "contexts/s"),
    ("p99.9", "latency", "push, flat out, p99.9", "ns"),
];

/// One table of the contestants that have all of [`SUMMARY`]'s figures.
pub fn summary(rows: &[Row]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.contestant.as_str()) {
            names.push(&row.contestant);
        }
    }
    let mut text = format!(
        "| | {} |\n|---|{}\n",
        SUMMARY.map(|(heading, ..)| heading).join(" | "),
        "--:|".repeat(SUMMARY.len())
    );
    for name in names {
        let values = SUMMARY.map(|(_, bench, param, unit)| {
            let is = |row: &&Row| {
                row.contestant == name
                    && row.bench == bench
                    && row.param == param
                    && row.unit == unit
            };
            rows.iter().find(is).map(|row| number(row.median))
        });
        if values.iter().all(Option::is_some) {
            let _ = writeln!(
                text,
                "| {} | {} |",
                escaped(name),
                values.map(Option::unwrap_or_default).join(" | ")
            );
        }
    }
    text
}

/// Replaces what stands between `<!-- begin summary -->` and `<!-- end summary -->`.
pub fn insert_summary(path: &Path, summary: &str) -> anyhow::Result<()> {
    const BEGIN: &str = "<!-- begin summary -->\n";
    const END: &str = "<!-- end summary -->";
    let text = std::fs::read_to_string(path)?;
    let missing = || anyhow::anyhow!("{} has no {BEGIN} … {END}", path.display());
    let (head, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (_, tail) = rest.split_once(END).ok_or_else(missing)?;
    Ok(std::fs::write(path, format!("{head}{BEGIN}{summary}{END}{tail}"))?)
}

/// Writes each section to a file of its own, `NAME.md` in `dir`.
pub fn write_md(dir: &Path, sections: &[(&str, String)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (name, content) in sections {
        let title = title(name);
        let text = format!("# {title}\n\nGenerated: do not edit.\n\n{}\n", content.trim());
        std::fs::write(dir.join(format!("{name}.md")), text)?;
    }
    Ok(())
}

fn title(section: &str) -> &'static str {
    match section {
        "targets" => "Targets of one run",
        "scaling" => "Read-modify-writes and slow paths, counted",
        "processor" => "BatchProcessor beside other ways to batch",
        _ => "All figures of one run",
    }
}
