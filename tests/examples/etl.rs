//! Rows can be followed through the stages by links alone.

use super::exported::{Exported, events, int, json, links, run, text};

/// Rows that a span took, by its links.
fn taken(span: &serde_json::Value) -> u64 {
    links(span).iter().map(|link| int(link, "rows")).sum()
}

fn assert_lineage(exported: &Exported, rows: u64) {
    let extracted: u64 = exported.named("read_page").iter().map(|page| int(page, "rows")).sum();
    assert_eq!(extracted, rows);
    let mut rejected = 0;
    for transform in exported.named("transform") {
        assert_eq!(exported.parent(transform), None, "a stage has traces of its own");
        assert_eq!(taken(transform), int(transform, "batch.size"));
        assert_eq!(links(transform).len() as u64, int(transform, "batch.links"));
        assert_eq!(events(transform, "row.rejected").len() as u64, int(transform, "rows.rejected"));
        rejected += int(transform, "rows.rejected");
        for link in links(transform) {
            assert_eq!(
                (&link["type"], &link["target"]),
                (&"derived_from".into(), &"read_page".into())
            );
            let source = exported
                .parent(exported.target(link))
                .expect("a page is read within an extraction");
            assert!(
                source["name"].as_str().is_some_and(|name| name.starts_with("extract source_")),
                "{source}"
            );
        }
    }
    let mut loaded = 0;
    for load in exported.named("load") {
        assert_eq!(taken(load), int(load, "batch.size"));
        loaded += taken(load);
        assert_eq!(int(load, "rows.in_table"), loaded);
        for link in links(load) {
            assert_eq!(
                (&link["type"], &link["target"]),
                (&"aggregates".into(), &"transform".into())
            );
        }
    }
    assert_eq!(extracted, loaded + rejected);
    let counted =
        ["rows extracted", "rows rejected", "rows loaded"].map(|name| exported.counter(name));
    assert_eq!(counted, [extracted, rejected, loaded]);
}

#[test]
fn rows_lead_to_their_pages() {
    let exported = json("etl", "");
    assert_lineage(&exported, 72);
    assert_eq!(exported.counter("rows rejected"), 6);
    assert!(
        exported.named("transform").iter().all(|span| links(span).len() >= 2),
        "chunks mix sources"
    );
}

#[test]
fn sizes_need_not_divide() {
    for (flags, rows) in [
        ("--sources 1 --rows 1", 1),
        ("--sources 7 --rows 33 --page 5 --chunk 11 --batch 13", 231),
        ("--rows 500 --page 1 --chunk 128 --batch 128", 1500),
        ("--rows 40 --page 4000000000 --chunk 1 --batch 1", 120),
    ] {
        println!("{flags}");
        assert_lineage(&json("etl", flags), rows);
    }
}

#[test]
fn sizes_over_limit_are_refused() {
    for flags in ["--chunk 129", "--batch 129", "--chunk 0", "--page 0", "--sources 0", "--rows 0"]
    {
        let output = run("etl", flags);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags}: {message}");
        assert!(
            message.contains(flags.split(' ').next().unwrap_or_default()),
            "{flags}: {message}"
        );
    }
}
