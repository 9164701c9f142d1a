//! How the demo prints: headings, commands with their output, and sentences.

/// Lines of output shown of one command; more would bury the point.
const SHOWN: usize = 16;

/// Starts a step.
pub(super) fn heading(number: usize, title: &str) {
    println!("\n{number}. {title}\n{}", "-".repeat(title.len() + 3));
}

/// A command, by whose prompt it runs, and what it printed.
pub(super) fn command(place: &str, line: &str, output: &str) {
    println!("  {place}$ {line}");
    text(output);
}

/// Indented text, cut to [`SHOWN`] lines.
pub(super) fn text(output: &str) {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    for line in lines.iter().take(SHOWN) {
        println!("    {line}");
    }
    if lines.len() > SHOWN {
        println!("    ... {} more lines", lines.len() - SHOWN);
    }
}

/// What the output above shows; printed after it was checked.
pub(super) fn shown(sentence: &str) {
    println!("  => {sentence}");
}
