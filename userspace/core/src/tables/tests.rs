//! Tests of the tables as a whole.

mod every_write;
mod image;
mod limits;
mod world;

use super::{Step, Tables};
use crate::plan::Plan;
use image::Image;

/// Steps until nothing is left to release; gives the last outcome, which says all but the writes.
fn settle(tables: &mut Tables, image: &mut Image, plan: &Plan) -> Step {
    for _ in 0..5 {
        let step = tables.step(plan, &world::links(), &every_write::SETTINGS);
        step.writes.iter().for_each(|write| image.write(write));
        if !step.unsettled {
            return step;
        }
    }
    panic!("still unsettled after five steps of the same plan");
}
