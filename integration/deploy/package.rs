//! The Debian package and the bill of materials.

use crate::{at, read, run, validator};
use std::process::Command;

/// Every file that the package takes is there, its scripts are scripts, and it starts nothing.
#[test]
fn the_debian_package() {
    let manifest = read("Cargo.toml");
    let assets: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next())
        .collect();
    assert!(assets.len() >= 7, "{assets:?}");
    for asset in assets.iter().filter(|asset| !asset.starts_with("target/")) {
        assert!(at(asset).is_file(), "{asset} is not there");
    }
    for script in ["postinst", "prerm", "postrm"] {
        run(Command::new("sh")
            .arg("-n")
            .arg(at("deploy/debian").join(script)));
    }
    let unit = read("deploy/systemd/lockstep.service");
    assert!(
        unit.contains("ExecStart=/usr/bin/lockstep --config /etc/lockstep/lockstep.toml"),
        "{unit}"
    );
}

/// `deploy/sbom` writes a bill of materials of all that is built into the program.
#[test]
fn the_bill_of_materials() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sbom.json");
    run(Command::new(at("deploy/sbom")).arg(&path));
    let text = std::fs::read_to_string(&path).expect("written");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let components = document["components"].as_array().expect("a list");
    let has = |name: &str| components.iter().any(|component| component["name"] == name);
    assert!(has("tokio") && has("rustls") && has("ring"), "{text}");
    // Tests are not shipped.
    assert!(!has("stateright") && !has("proptest") && !has("tempfile"));
    for component in components {
        assert!(
            component["version"].is_string() && component["licenses"].is_array(),
            "{component}"
        );
    }
    println!("bill of materials: {} components", components.len());
    let Some(mut command) = validator("sbom") else {
        return;
    };
    run(command.arg(path));
}
