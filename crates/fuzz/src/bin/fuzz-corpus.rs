//! Writes the real structures that each target starts from to `fuzz/corpus/TARGET/`, where cargo-fuzz looks for them.

use frazil_fuzz::{seeds, targets};
use frazil_testing::golden::source_root;
use frazil_testing::sha256_hex;

fn main() -> std::io::Result<()> {
    for target in targets::ALL {
        let dir = source_root().join("fuzz/corpus").join(target.name);
        std::fs::create_dir_all(&dir)?;
        let inputs = seeds::of_target(target.name);
        for input in &inputs {
            std::fs::write(dir.join(&sha256_hex(input)[..16]), input)?;
        }
        println!("{}: {} inputs", dir.display(), inputs.len());
    }
    Ok(())
}
