mod deletion;
mod golden;
mod golden_stages;
mod life;
mod parts;
mod properties;
mod requirements;
mod reruns;
