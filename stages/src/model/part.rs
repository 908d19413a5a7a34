//! One parameter of a model: the names, shapes and order under which files know it.
//! Knows nothing of what the weights do.

use tch::Tensor;

/// A stretch of rows of a parameter that files know under a name of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// Shape in memory: outputs × inputs.
    pub shape: Vec<i64>,
    pub stored: Stored,
}

/// How a file orders the values of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// As in memory.
    Plain,
    /// Inputs × outputs.
    Transposed,
    /// Query, key and value of each of so many heads together, where memory holds all queries, all
    /// keys, all values.
    ByHead(i64),
}

impl Part {
    /// Shape in the file.
    pub fn file_shape(&self) -> Vec<i64> {
        match self.stored {
            Stored::Transposed => self.shape.iter().rev().copied().collect(),
            _ => self.shape.clone(),
        }
    }

    /// Values in memory order, `[n]`, of those in file order, `[n]`.
    pub fn from_file(&self, values: &Tensor) -> Tensor {
        match self.stored {
            Stored::Plain => values.shallow_clone(),
            Stored::Transposed => values.view(self.file_shape().as_slice()).tr().reshape([-1]),
            Stored::ByHead(heads) => values.view([heads, 3, -1]).transpose(0, 1).reshape([-1]),
        }
    }

    /// Values in file order, `[n]`, of those in memory order, `[n]`.
    pub fn to_file(&self, values: &Tensor) -> Tensor {
        match self.stored {
            Stored::Plain => values.shallow_clone(),
            Stored::Transposed => values.view(self.shape.as_slice()).tr().reshape([-1]),
            Stored::ByHead(heads) => values.view([3, heads, -1]).transpose(0, 1).reshape([-1]),
        }
    }

    /// Number of values.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// One parameter: matrices that are multiplied with the same input are one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    pub parts: Vec<Part>,
    /// Shape of the whole: the parts under one another.
    pub shape: Vec<i64>,
    pub init: Init,
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    Ones,
    Zeros,
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform between this and its negative.
    Uniform(f64),
}

impl ParamSpec {
    /// A parameter of these parts, under one another.
    pub fn new(parts: Vec<Part>, init: Init) -> Self {
        let mut shape = parts[0].shape.clone();
        shape[0] = parts.iter().map(|p| p.shape[0]).sum();
        Self { parts, shape, init }
    }

    /// Number of values.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Whether weight decay applies: to matrices only.
    pub fn decays(&self) -> bool {
        self.shape.len() > 1
    }
}
