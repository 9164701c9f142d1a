//! The tables, and whether they say what the maps hold.
//!
//! A step takes it that its writes are carried out. Where one was not, the tables are wrong until the maps have been read again,
//! and nothing is stepped before.

use super::RETRY;
use crate::causes::error_text;
use std::error::Error;
use weir_core::{
    model::{Condition, ObjectRef, reason},
    tables::Tables,
};

/// The tables of one agent.
#[derive(Debug)]
pub(super) struct Mirror {
    node: String,
    tables: Tables,
    /// A write failed, and the maps have not been read since.
    wrong: bool,
    /// What failed last, until all writes of a step are carried out.
    problem: Option<String>,
}

impl Mirror {
    /// Of `node`: `tables` say what the maps hold.
    pub(super) const fn new(node: String, tables: Tables) -> Self {
        Self {
            node,
            tables,
            wrong: false,
            problem: None,
        }
    }

    /// The tables as they were last right, or else as the last step wanted them.
    pub(super) const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The tables, to be stepped; after a write that failed they are read anew with `read`, and there are none if that cannot be
    /// done.
    pub(super) fn right<E: Error>(&mut self, read: impl FnOnce() -> Result<Tables, E>) -> Option<&mut Tables> {
        if self.wrong {
            match read() {
                Ok(tables) => (self.tables, self.wrong) = (tables, false),
                Err(problem) => {
                    self.problem = Some(format!("the maps cannot be read either: {}", error_text(&problem)));
                    return None;
                }
            }
        }
        Some(&mut self.tables)
    }

    /// Whether all writes of the last step were carried out.
    pub(super) const fn is_right(&self) -> bool {
        self.problem.is_none()
    }

    /// The last step's writes were carried out, or one was not.
    pub(super) fn written<E: Error>(&mut self, written: &Result<(), E>) {
        self.wrong = written.is_err();
        self.problem = written.as_ref().err().map(|problem| error_text(problem));
    }

    /// What is wrong.
    pub(super) fn condition(&self) -> Option<Condition> {
        let problem = self.problem.as_ref()?;
        let message = format!(
            "a map could not be written: {problem}. Packets are forwarded by what the maps hold, which may lack the latest changes. \
             It is tried again every {} seconds; if it goes on, look into the kernel's log and start weir again.",
            RETRY.as_secs()
        );
        let object = ObjectRef::cluster_scoped("Node", &self.node);
        Some(Condition::new(object, "--pin-dir", reason::MAP_NOT_WRITTEN, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use weir_core::tables::Contents;

    /// Of maps of no size.
    fn tables() -> Tables {
        Tables::adopt(&Contents {
            filter: &[],
            displacement: &[],
            directory: &[],
            rows: &[],
            history: &[],
            backends: &[],
            nodes: &[],
            responders: &[],
            sources: &[],
        })
    }

    fn refused() -> io::Error {
        io::Error::other("no")
    }

    #[test]
    fn after_a_failed_write_nothing_is_stepped_until_the_maps_are_read() {
        let mut mirror = Mirror::new("node-1".into(), tables());
        let unneeded = || -> Result<Tables, io::Error> { panic!("they are right") };
        assert!(mirror.right(unneeded).is_some() && mirror.condition().is_none());

        mirror.written(&Err(refused()));
        let condition = mirror.condition().unwrap();
        assert_eq!(
            (&*condition.object.name, &*condition.reason),
            ("node-1", "MapNotWritten")
        );
        assert!(mirror.right(|| Err(refused())).is_none());
        assert!(mirror.right(|| Err(refused())).is_none(), "nor later");
        assert!(mirror.condition().unwrap().message.contains("cannot be read either"));

        assert!(mirror.right(|| Ok::<_, io::Error>(tables())).is_some());
        assert!(mirror.condition().is_some(), "what was not written is still missing");
        assert!(mirror.right(unneeded).is_some());
        mirror.written(&Ok::<_, io::Error>(()));
        assert_eq!(mirror.condition(), None);
    }
}
