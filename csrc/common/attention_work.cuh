// What attention's blocks work on: pieces of the work list, passes of their rows, chunks of those.
#pragma once
#include "attention.cuh"

// A chunk of some rows of a piece.
struct Unit {
    uint32_t piece;
    uint32_t kv_head;
    AttentionItem item;
    uint32_t row, rows;   // of the step; whole rows, at most PASS_QUERIES queries
    uint32_t kv, kv_end;  // the chunk's first position; the end of what the rows see of the item

    __device__ uint32_t count() const { return kv < kv_end ? min(CHUNK, kv_end - kv) : 0; }
    __device__ bool is_first() const { return kv == item.kv_first; }
    __device__ bool is_last() const { return kv + CHUNK >= kv_end; }
    __device__ bool ends_piece() const { return is_last() && row + rows == item.row + item.rows; }
};

// What the units are taken from.
struct Work {
    const AttentionParams& p;
    uint32_t pieces;
    uint32_t group;  // query heads per KV head

    __device__ bool has(const Unit& unit) const { return unit.piece < pieces; }

    __device__ void enter_rows(Unit& unit, uint32_t row) const {
        unit.row = row;
        unit.rows = min(PASS_QUERIES / group, unit.item.row + unit.item.rows - row);
        unit.kv = unit.item.kv_first;
        unit.kv_end = min(unit.item.kv_first + unit.item.kv_count, p.positions[row + unit.rows - 1] + 1);
    }

    __device__ void enter_piece(Unit& unit, uint32_t piece) const {
        unit.piece = piece;
        if (!has(unit)) return;
        unit.kv_head = piece % p.kv_heads;
        unit.item = p.items[piece / p.kv_heads];
        enter_rows(unit, unit.item.row);
    }

    __device__ Unit next(Unit unit) const {
        if (!unit.is_last()) {
            unit.kv += CHUNK;
        } else if (!unit.ends_piece()) {
            enter_rows(unit, unit.row + unit.rows);
        } else {
            enter_piece(unit, unit.piece + gridDim.x);
        }
        return unit;
    }
};
