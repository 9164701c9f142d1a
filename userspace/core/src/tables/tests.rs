//! Tests of the tables as a whole.

mod between;
mod changes;
mod every_write;
mod history;
mod image;
mod limits;
mod world;

use super::{Settings, Step, Tables};
use crate::plan::Plan;
use image::Image;

const SETTINGS: Settings = Settings {
    tunnel_port: 6081,
    jiffies_per_second: 250,
    now: 0,
    udp_idle: 180,
};

/// Steps until nothing is left to release; gives the last outcome, which says all but the writes.
fn settle(tables: &mut Tables, image: &mut Image, plan: &Plan) -> Step {
    for _ in 0..5 {
        let step = tables.step(plan, &world::links(), &SETTINGS);
        step.writes.iter().for_each(|write| image.write(write));
        if !step.unsettled {
            return step;
        }
    }
    panic!("still unsettled after five steps of the same plan");
}
