//! Positions and masks of the columns of a batch, one set for layers that see everything and one
//! for those with a window. Knows nothing of weights beyond the table of learned positions.

use tch::{Kind, Tensor};

use super::Trunk;
use super::attention::{
    Mask, Rotary, branch_mask, left_mask, text_mask, window_mask, window_mask_at,
};
use super::config::LayerKind;

/// How the texts of a batch lie in its rows: which columns are real, which positions they have.
#[derive(Debug)]
pub enum Layout {
    /// Rows start in column 0 and are padded on the right. The causal mask then hides the
    /// padding from every real token, and positions are the columns.
    RightPadded,
    /// Row `b` starts in column `start[b]`, `[batch]`, and ends in the last column.
    LeftPadded(Tensor),
    /// Several texts share a row: `texts`, `[batch, time]`, numbers them, and none sees another;
    /// `positions`, `[batch, time]`, count from the start of each.
    Packed { texts: Tensor, positions: Tensor },
    /// Texts that go on from another one in the same row, which is there once: `parents`,
    /// `[batch, time]`, are the numbers of those; `positions` go on from it too.
    Shared { texts: Tensor, parents: Tensor, positions: Tensor },
}

/// Positions and masks of the columns of a batch, as the layers use them.
pub(super) struct Columns {
    /// What learned positions add to the embedding.
    pub(super) learned: Option<Tensor>,
    all: View,
    /// For layers with a window; `None`: it is longer than the rows.
    window: Option<Mask>,
    /// For layers with a window that have rotary positions of their own.
    window_rotary: Option<Rotary>,
}

/// Rotary tables and mask of layers that see everything.
struct View {
    rotary: Option<Rotary>,
    mask: Mask,
}

impl Columns {
    /// The rotary tables of a layer; nothing where it has no such positions.
    pub(super) fn rotary(&self, kind: LayerKind) -> Option<&Rotary> {
        let own = self.window_rotary.as_ref().filter(|_| kind.windowed);
        own.or(self.all.rotary.as_ref()).filter(|_| !kind.unrotated)
    }

    /// What the columns of a layer see.
    pub(super) fn mask(&self, kind: LayerKind) -> &Mask {
        self.window.as_ref().filter(|_| kind.windowed).unwrap_or(&self.all.mask)
    }
}

impl Trunk {
    /// Positions and masks of a batch `ids`, `[batch, time]`.
    pub(super) fn columns(&self, ids: &Tensor, layout: &Layout) -> Columns {
        let time = ids.size()[1];
        let all = || Tensor::arange(time, (Kind::Int64, ids.device()));
        match layout {
            Layout::RightPadded => {
                let first = |r: &Rotary| r.first(time).to_kind(self.compute.kind);
                let window = self.window(time).map(|window| {
                    let near = window_mask(&all(), &all(), window);
                    Mask { seen: Some(near.tril(0)), causal: false }
                });
                Columns {
                    learned: self.learned().map(|table| table.narrow(0, 0, time)),
                    all: View {
                        rotary: self.rotary.as_ref().map(first),
                        mask: Mask { seen: None, causal: time > 1 },
                    },
                    window,
                    window_rotary: self.window_rotary.as_ref().map(first),
                }
            }
            Layout::LeftPadded(start) => self.left_columns(&all(), &all(), start),
            Layout::Packed { texts, positions } => {
                self.columns_at(positions, text_mask(texts), |window| {
                    window_mask(&all(), &all(), window)
                })
            }
            Layout::Shared { texts, parents, positions } => {
                // Columns of a text and of what it goes on from may lie apart.
                self.columns_at(positions, branch_mask(texts, parents), |window| {
                    window_mask_at(positions, window)
                })
            }
        }
    }

    /// Columns `columns`, `[time]`, of left-padded rows that see columns `all`: positions count
    /// from each row's start.
    pub(super) fn left_columns(&self, columns: &Tensor, all: &Tensor, start: &Tensor) -> Columns {
        let positions = (columns.unsqueeze(0) - start.unsqueeze(1)).clamp_min(0);
        // Within a text columns count as positions do.
        self.columns_at(&positions, left_mask(columns, all, start), |window| {
            window_mask(columns, all, window)
        })
    }

    /// Columns at `positions`, `[batch, time]`, that see `seen`, `[batch, 1, time, columns]`;
    /// `near` says which columns a window of that length holds.
    fn columns_at(
        &self,
        positions: &Tensor,
        seen: Tensor,
        near: impl FnOnce(i64) -> Tensor,
    ) -> Columns {
        let at = |r: &Rotary| r.at(positions).to_kind(self.compute.kind);
        let window = self
            .window(seen.size()[3])
            .map(|window| Mask { seen: Some(seen.logical_and(&near(window))), causal: false });
        Columns {
            learned: self.learned().map(|t| Tensor::embedding(t, positions, -1, false, false)),
            all: View {
                rotary: self.rotary.as_ref().map(at),
                mask: Mask { seen: Some(seen), causal: false },
            },
            window,
            window_rotary: self.window_rotary.as_ref().map(at),
        }
    }

    /// The window of layers that have one, where it is shorter than so many columns.
    fn window(&self, columns: i64) -> Option<i64> {
        let c = &self.config;
        c.window.filter(|window| *window < columns && c.has_window())
    }

    /// The table of learned positions, `[context, hidden]`.
    fn learned(&self) -> Option<&Tensor> {
        self.index.positions.map(|i| &self.params.tensors[i])
    }
}
