mod dir;
mod hashed;
mod path;
mod walk;
