//! Asks the packet program what it would do with a frame: a second instance of it over the same maps, loaded so that it
//! changes nothing, attached nowhere, and run once by `BPF_PROG_TEST_RUN`.

use super::{
    attach::{INGRESS, ingress},
    error::Error,
    layout, object,
    pins::PinDir,
    sys,
};
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{TestRun, TestRunOptions},
};
use std::path::Path;
use weir_common::verdict::Reason;

/// Longer than any frame that is asked about and what a tunnel adds.
const ROOM: usize = 4096;

/// The instance that answers.
#[derive(Debug)]
pub struct Tracer {
    ebpf: Ebpf,
    same_code: Option<bool>,
}

/// What the program said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `XDP_*`.
    pub code: u32,
    /// Why.
    pub reason: Option<Reason>,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Tracer {
    /// Loads the instance over the maps pinned under `pin_dir`. Creates no pin.
    ///
    /// # Errors
    ///
    /// [`Error::NoDataPath`], and what the kernel says.
    pub fn load(pin_dir: &Path) -> Result<Self, Error> {
        let pins = PinDir::new(pin_dir);
        let shapes = object::shapes(&[])?;
        let mut loader = EbpfLoader::new();
        loader.override_global("READ_ONLY", &1_u8, true);
        for (map, _) in layout::PINNED {
            if !shapes.contains_key(map) {
                continue;
            }
            if !pins.map(map).exists() {
                return Err(Error::NoDataPath {
                    pin_dir: pin_dir.to_owned(),
                    map,
                });
            }
            loader.map_pin_path(map, pins.map(map));
        }
        let mut ebpf = loader
            .load(object::OBJECT)
            .map_err(|error| Error::Load(Box::new(error)))?;
        let program = ingress(&mut ebpf)?;
        object::verified(|| program.load()).map_err(refused)?;
        let own = format!("{:016x}", program.info().map_err(refused)?.tag());
        let same_code = live_tags(&pins)?
            .into_iter()
            .map(|tag| tag == own)
            .reduce(|all, same| all && same);
        Ok(Self { ebpf, same_code })
    }

    /// Whether the programs on interfaces are of the same code as this one; `None` when there are none.
    #[must_use]
    pub const fn same_code(&self) -> Option<bool> {
        self.same_code
    }

    /// Runs `frame`.
    ///
    /// # Errors
    ///
    /// [`Error::Program`], [`Error::Map`].
    pub fn ask(&mut self, frame: &[u8]) -> Result<Answer, Error> {
        let mut output = vec![0; ROOM];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ..TestRunOptions::default()
        };
        let result = ingress(&mut self.ebpf)?.test_run(options).map_err(refused)?;
        output.truncate(result.data_size_out as usize);
        let map = self.ebpf.map("TRACED").ok_or(Error::NoMap("TRACED"))?;
        let traced: Array<_, u32> = Array::try_from(map).map_err(Error::map("open", "TRACED"))?;
        let reason = traced.get(&0, 0).map_err(Error::map("read", "TRACED"))?;
        Ok(Answer {
            code: result.return_value,
            reason: Reason::ALL.get(reason as usize).copied(),
            frame: output,
        })
    }
}

fn refused(source: aya::programs::ProgramError) -> Error {
    Error::Program {
        name: INGRESS,
        source: Box::new(source),
    }
}

/// Tags of the XDP programs that pinned links run on interfaces there are.
fn live_tags(pins: &PinDir) -> Result<Vec<String>, Error> {
    let mut tags = Vec::new();
    for (kind, _, path) in pins.linked()? {
        if kind == "xdp" {
            let asked = sys::pinned_link(&path).and_then(|link| Ok((link.ifindex, sys::pinned_link_tag(&path)?)));
            let (ifindex, tag) = asked.map_err(Error::file("open", &path))?;
            if ifindex != 0 {
                tags.push(tag);
            }
        }
    }
    Ok(tags)
}
