//! Tensors as lists of numbers on the host.
//! Knows nothing of what the numbers mean.

use tch::{Kind, Tensor};

/// Numbers on the host, in order.
pub fn to_f32(x: &Tensor) -> Vec<f32> {
    let x = x.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut out = vec![0.0; x.numel()];
    let n = out.len();
    x.copy_data(&mut out, n);
    out
}

/// Numbers on the host, in order.
pub fn to_f64(x: &Tensor) -> Vec<f64> {
    to_f32(x).into_iter().map(f64::from).collect()
}
