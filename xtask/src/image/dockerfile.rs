//! The Dockerfile makes the image that `cargo xtask image` makes; there is no docker where the tests run, so it is read.

use super::{Architecture, Args, PROGRAM, Profile, folder, layout, program};
use crate::workspace;
use clap::{Parser, ValueEnum};
use serde_json::json;
use std::{fs, path::Path};

/// An instruction, and what follows it, up to the end of its last line.
type Instruction = (String, String);

fn read(name: &str) -> String {
    let path = workspace::root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn instructions() -> Vec<Instruction> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    let instructions = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    instructions
        .map(|line| {
            let (word, rest) = line.split_once(' ').expect("an instruction has arguments");
            (word.to_uppercase(), rest.trim().to_owned())
        })
        .collect()
}

/// The two stages: where the program is built, and the image.
fn stages() -> [Vec<Instruction>; 2] {
    let all = instructions();
    let starts: Vec<usize> = (0..all.len()).filter(|at| all[*at].0 == "FROM").collect();
    let [0, second] = starts[..] else {
        panic!("stages begin at {starts:?}");
    };
    let (first, last) = all.split_at(second);
    [first.to_vec(), last.to_vec()]
}

/// What the stage runs, command by command, for an architecture.
fn commands(architecture: Architecture) -> Vec<String> {
    let [building, _] = stages();
    let arguments = building.iter().filter(|(word, _)| word == "ARG");
    assert_eq!(
        arguments.map(|(_, name)| name.as_str()).collect::<Vec<_>>(),
        ["TARGETARCH"]
    );
    let runs = building.iter().filter(|(word, _)| word == "RUN");
    let commands = runs.flat_map(|(_, line)| line.split("&&").map(str::trim));
    commands
        .map(|command| command.replace("$TARGETARCH", architecture.name()))
        .collect()
}

#[test]
fn it_builds_on_the_machine_it_runs_on_with_the_compiler_of_this_repository() {
    let [building, _] = stages();
    let (_, base) = &building[0];
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = "));
    let channel = channel.expect("there is a channel").trim_matches('"');
    let words: Vec<&str> = base.split_whitespace().collect();
    let ["--platform=$BUILDPLATFORM", image, "AS", "build"] = words[..] else {
        panic!("{base}");
    };
    let version = image.strip_prefix("rust:").and_then(|tag| tag.split('-').next());
    let version = version.expect("an image of rust");
    assert!(
        channel == version || channel.starts_with(&format!("{version}.")),
        "{image}, and the repository wants {channel}"
    );
    assert!(building.contains(&("COPY".into(), ". .".into())), "{building:?}");
}

#[test]
fn it_runs_the_verbs_there_are_for_every_machine_that_there_are_images_for() {
    for &architecture in Architecture::value_variants() {
        let commands = commands(architecture);
        let [ebpf, image, moving] = &commands[..] else {
            panic!("{commands:?}");
        };
        let verb = |command: &str| -> crate::Verb {
            let words = command.strip_prefix("cargo ").expect("a command of cargo");
            crate::Verb::try_parse_from(words.split_whitespace()).expect("a verb there is")
        };
        assert!(matches!(verb(ebpf), crate::Verb::BuildEbpf), "{ebpf}");
        let crate::Verb::Image(Args { architectures, profile }) = verb(image) else {
            panic!("{image}");
        };
        assert_eq!((architectures, profile), (vec![architecture], Profile::Release));

        // What the verb leaves, where it leaves it, becomes what the image has.
        let built = program::place(architecture, &Path::new("target").join(folder(profile)));
        let words: Vec<&str> = moving.split_whitespace().collect();
        let ["mv", from, to] = words[..] else {
            panic!("{moving}");
        };
        assert_eq!(Path::new(from), built);
        let [_, image] = stages();
        let copied = ("COPY".to_owned(), format!("--from=build {to} /{PROGRAM}"));
        assert!(image.contains(&copied), "{image:?}");
    }
}

#[test]
fn the_image_is_the_same() {
    let [_, image] = stages();
    assert_eq!(image[0], ("FROM".into(), "scratch".into()));
    // Nothing beside the program, and no user, whom the manifests name.
    let words: Vec<&str> = image.iter().map(|(word, _)| word.as_str()).collect();
    assert_eq!(words, ["FROM", "COPY", "ENTRYPOINT"]);
    let entrypoint: serde_json::Value = serde_json::from_str(&image[2].1).expect("words, with no shell");
    assert_eq!(json!({"Entrypoint": entrypoint}), layout::settings());
}

/// The platforms of the commands that people are given are those there are images for.
#[test]
fn people_are_told_of_every_machine() {
    let all = Architecture::value_variants().iter();
    let all: Vec<String> = all
        .map(|architecture| format!("linux/{}", architecture.name()))
        .collect();
    for file in ["Dockerfile", "docs/kubernetes.md"] {
        let text = read(file).replace('\n', " ");
        let platforms = text.split("docker buildx build --platform ").nth(1);
        let platforms = platforms.and_then(|rest| rest.split_whitespace().next());
        assert_eq!(platforms, Some(all.join(",").as_str()), "{file}");
    }
}
