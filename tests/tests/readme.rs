//! The README's table of places names files that exist.

use std::{fs, path::Path};

#[test]
fn where_is_it_names_existing_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(root.join("README.md")).expect("the README is readable");
    let table = readme
        .split("## Where is it?")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("the README has the table");
    let places: Vec<&str> = table.split('`').skip(1).step_by(2).collect();
    assert!(places.len() > 15, "only {} places are named", places.len());
    assert!(!readme.contains("NUMBERS"), "a placeholder is left in the README");
    for place in places {
        assert!(
            root.join(place).is_file(),
            "the README names {place}, which does not exist"
        );
    }
}
