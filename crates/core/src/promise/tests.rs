mod deletion;
mod golden;
mod life;
mod parts;
mod properties;
mod requirements;
mod reruns;
