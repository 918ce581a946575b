mod dir;
mod hashed;
mod hostile;
mod path;
mod walk;
