//! Power failures at any moment, with writes lost, kept and torn; recovery; and on.

use std::sync::Arc;

use frazil_btree::write::EngineOptions;
use frazil_device::{Device, MemDevice, RecordingDevice};
use frazil_ondisk::units::Seq;

use crate::growth::{assert_holds, new_device, of_tree};
use crate::world::{self, TREES};
use crate::{Edit, Model, commit, edit_model, random_edits, seeds};

/// What was known at a moment of the recording.
struct Known {
    position: usize,
    durable: Seq,
}

/// The model after everything up to some entry.
fn model_at(before: &Model, commits: &[(Seq, Vec<Edit>)], upto: Seq) -> Model {
    let mut model = before.clone();
    for (_, edits) in commits.iter().filter(|(seq, _)| *seq <= upto) {
        edit_model(&mut model, edits);
    }
    model
}

fn run_seed(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut image = MemDevice::from_bytes(&{
        let device = new_device();
        let mut bytes = vec![0; device.size_bytes() as usize];
        device.read_at(0, &mut bytes).unwrap();
        bytes
    });
    let mut before = Model::new();
    for life in 0..3 {
        let recorded = Arc::new(RecordingDevice::new(image.snapshot()));
        let device = Arc::clone(&recorded) as Arc<dyn Device>;
        let options = EngineOptions { seed: seed * 10 + life, restart_one_in: 20 };
        let world = world::open(&device, 1 << 17, &options);
        let opened = recorded.position();
        assert_holds(&world, &before, &format!("ENGINE_SEED={seed} life {life} recovered"));
        let (mut commits, mut known, mut model) = (Vec::new(), Vec::new(), before.clone());
        for _ in 0..rng.u32(50..400) {
            let edits = random_edits(&mut rng, &model, 600);
            if let Some(seq) = commit(&world.engine, &edits) {
                commits.push((seq, edits.clone()));
            }
            edit_model(&mut model, &edits);
            match rng.u32(0..40) {
                0 => {
                    if let Some(&(durable, _)) = commits.last() {
                        world.journal.flush_seq(durable).unwrap();
                        known.push(Known { position: recorded.position(), durable });
                    }
                }
                1 => drop(world.journal.flush_pins(Seq(u64::MAX)).unwrap()),
                2..12 => drop(world.journal.step()),
                _ => {}
            }
        }
        let log = recorded.log();
        let end = recorded.position();
        let mut chosen = None;
        for n in 0..12 {
            let position = rng.usize(opened..=end);
            let crash = log.crash_after(position);
            let image = match n % 4 {
                0 => crash.all_lost(),
                1 => crash.all_kept(),
                _ => crash.sample(rng.u64(..)),
            };
            let what = format!("ENGINE_SEED={seed} life {life} crash {n} after operation {position}");
            let device: Arc<dyn Device> = Arc::new(image.snapshot());
            let found = world::scan(&device);
            let durable = known.iter().filter(|k| k.position <= position).map(|k| k.durable).max();
            if let Some(durable) = durable {
                assert!(found.newest_flush >= durable, "{what}: {durable} was durable");
            }
            let expected = model_at(&before, &commits, found.newest_flush);
            let trees = world::look(&device, &found);
            let counts = world::counts(&device, &found);
            for btree in TREES {
                let wanted = of_tree(&expected, btree);
                assert_eq!(world::keys(&trees, btree), wanted, "{what}: {btree}");
                assert_eq!(counts.get(&btree).copied().unwrap_or(0), wanted.len() as i64, "{what}: {btree}");
            }
            chosen = Some((image, expected));
        }
        (image, before) = chosen.unwrap();
    }
}

#[test]
fn after_any_crash_there_is_what_was_committed_up_to_some_entry() {
    seeds(25).for_each(run_seed);
}
