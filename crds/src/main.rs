//! Writes the definitions into the folder it is given; `cargo xtask crds` calls it.

use std::{env, error::Error, fs, path::PathBuf};
use weir_crds::definition::{definitions, yaml};

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = env::args_os().nth(1).ok_or("give the folder to write to")?.into();
    for (plural, definition) in definitions() {
        let file = folder.join(format!("{plural}.yaml"));
        fs::write(&file, yaml(&definition))?;
        println!("{}", file.display());
    }
    Ok(())
}
