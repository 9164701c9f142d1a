//! Errors for people.

use std::error::Error;

/// An error and what caused it, in one line. Some errors of libraries tell their causes themselves: nothing is said twice.
#[must_use]
pub fn error_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn nothing_is_said_twice() {
        let refused = || anyhow!("connection refused").context("cannot connect: connection refused");
        let error = Err::<(), _>(refused()).context("no answer").unwrap_err();
        assert_eq!(
            error_text(error.as_ref()),
            "no answer: cannot connect: connection refused"
        );
        let error = anyhow!("no route").context("cannot connect");
        assert_eq!(error_text(error.as_ref()), "cannot connect: no route");
    }
}
