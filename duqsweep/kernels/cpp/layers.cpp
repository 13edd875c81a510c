// The transformer layers of a pi0.5 in float32, one call per layer: what policy/siglip.py and policy/gemma.py compute,
// up to rounding. Quantization is simulated: an input is permuted, rotated in blocks and rounded per token, then
// multiplied in floating point.
//
// Matrices are row by row. Weights are in panels: PANEL outputs each, input by input, so that a product reads them in
// order. Names of sizes: `rows` are tokens of all images or batches, `width` is that of the residual stream.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, MOST_ROWS = 8;
#elif defined(__AVX__)
constexpr int LANES = 8, MOST_ROWS = 6;
#else
constexpr int LANES = 4, MOST_ROWS = 6;
#endif
constexpr int VECTORS = 2, PANEL = VECTORS * LANES;
constexpr float RMS_EPS = 1e-6f, LAYER_EPS = 1e-6f, SMALLEST_TOKEN_SCALE = 1e-8f;

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

}  // namespace

extern "C" {

// One or more linear layers with the same input; their outputs lie side by side.
struct Product {
    const float *panels;           // of the weight
    const float *bias;             // (outputs,) and zeros up to a whole panel, or null
    const int32_t *permutation;    // (inputs,): the input channel of each permuted position, or null
    const float *rotation;         // panels of (block, block), or null
    int32_t inputs, outputs, block;
    float largest_code;            // of a token; 0: tokens are not rounded
};

struct Norm {
    const float *weight, *bias;   // (width,) each; bias: of a layer norm
};

struct Attention {
    const Product *inputs;        // q, k and v in this order, in one product or more
    const Product *output;
    int32_t input_products, heads, kv_heads, head_dim;
};

struct Mlp {
    const Product *inputs;        // gate and up, or fc1 alone
    const Product *output;
    int32_t input_products;
};

struct Layer {
    Norm before_attention, before_mlp;   // of the action expert: unused, its norms come with each call
    Attention attention;
    Mlp mlp;
    int32_t width;
    int32_t threads;
};

struct Expert {
    const Layer *layers;
    const Product *from_actions, *to_velocity;
    int32_t depth;
};

}  // extern "C"

namespace {

// Memory for intermediate results, which stays allocated: a layer asks for the same sizes in every call.
class Scratch {
  public:
    float *take(size_t count) {
        if (used_ == buffers_.size()) buffers_.emplace_back();
        std::vector<float> &buffer = buffers_[used_++];
        if (buffer.size() < count) buffer.resize(count);
        return buffer.data();
    }
    // What was taken since is free again.
    size_t mark() const { return used_; }
    void release(size_t mark) { used_ = mark; }

  private:
    std::vector<std::vector<float>> buffers_;
    size_t used_ = 0;
};

thread_local Scratch scratch;

class Frame {
  public:
    Frame() : mark_(scratch.mark()) {}
    ~Frame() { scratch.release(mark_); }
    float *take(size_t count) { return scratch.take(count); }

  private:
    size_t mark_;
};

inline size_t panels_size(int inputs, int outputs) {
    return size_t((outputs + PANEL - 1) / PANEL) * PANEL * inputs;
}

// Panels of the matrix whose element (input, output) is source[input * by_input + output * by_output].
void pack(const float *source, long by_input, long by_output, int inputs, int outputs, float *panels) {
    for (int first = 0; first < outputs; first += PANEL) {
        const int count = std::min(PANEL, outputs - first);
        const float *from = source + first * by_output;
        for (int input = 0; input < inputs; ++input, panels += PANEL) {
            for (int i = 0; i < count; ++i) panels[i] = from[input * by_input + i * by_output];
            for (int i = count; i < PANEL; ++i) panels[i] = 0.0f;
        }
    }
}

inline Vector &vector_at(float *place) { return *reinterpret_cast<Vector *>(place); }
inline const Vector &vector_at(const float *place) { return *reinterpret_cast<const Vector *>(place); }

// ROWS rows times one panel, plus the bias (of a whole panel, or null).
template <int ROWS>
void rows_times_panel(const float *x, long x_stride, const float *panel, int inputs, const float *bias, float *y,
                      long y_stride, int outputs) {
    Vector sums[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) sums[row][v] = bias == nullptr ? Vector{} : vector_at(bias + v * LANES);
    for (int input = 0; input < inputs; ++input, panel += PANEL) {
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; ++row) {
            const float value = x[row * x_stride + input];
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; ++v) sums[row][v] += value * vector_at(panel + v * LANES);
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; ++row, y += y_stride) {
        float part[PANEL];
        float *const to = outputs == PANEL ? y : part;
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) vector_at(to + v * LANES) = sums[row][v];
        if (outputs < PANEL) std::memcpy(y, part, sizeof(float) * outputs);
    }
}

using RowsTimesPanel = decltype(&rows_times_panel<1>);
constexpr RowsTimesPanel ROWS_TIMES_PANEL[] = {
    nullptr,
    rows_times_panel<1>,
    rows_times_panel<2>,
    rows_times_panel<3>,
    rows_times_panel<4>,
    rows_times_panel<5>,
    rows_times_panel<6>,
    rows_times_panel<7>,
    rows_times_panel<8>,
};

struct Matrix {
    const float *values;
    int rows, columns;
    long stride;  // from row to row
};

void multiply(const Matrix &x, const float *panels, int outputs, const float *bias, float *y, long y_stride,
              int threads) {
    const int groups = (x.rows + MOST_ROWS - 1) / MOST_ROWS, each = groups ? x.rows / groups : 0;
    const int larger = groups ? x.rows % groups : 0;  // these groups have one row more
    const int panel_count = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int n = 0; n < panel_count; ++n) {
        const int first = n * PANEL, count = std::min(PANEL, outputs - first);
        const float *panel = panels + size_t(first) * x.columns;
        for (int group = 0, row = 0; group < groups; ++group) {
            const int rows = each + (group < larger);
            ROWS_TIMES_PANEL[rows](x.values + row * x.stride, x.stride, panel, x.columns,
                                   bias == nullptr ? nullptr : bias + first, y + row * y_stride + first, y_stride,
                                   count);
            row += rows;
        }
    }
}

// Rounds each row with its own scale, largest |x| / largest code.
void round_rows(float *x, int rows, int width, float largest_code) {
    for (int row = 0; row < rows; ++row, x += width) {
        float largest = 0.0f;
#pragma omp simd reduction(max : largest)
        for (int i = 0; i < width; ++i) largest = std::max(largest, std::fabs(x[i]));
        const float scale = std::max(largest / largest_code, SMALLEST_TOKEN_SCALE);
#pragma omp simd
        for (int i = 0; i < width; ++i) x[i] = std::rint(x[i] / scale) * scale;
    }
}

// The input of a quantized product: permuted, rotated, rounded.
const float *transformed(const Product &p, const float *x, int rows, int threads, Frame &frame) {
    const size_t count = size_t(rows) * p.inputs;
    if (p.permutation != nullptr) {
        float *ordered = frame.take(count);
        for (int row = 0; row < rows; ++row)
            for (int i = 0; i < p.inputs; ++i)
                ordered[size_t(row) * p.inputs + i] = x[size_t(row) * p.inputs + p.permutation[i]];
        x = ordered;
    }
    if (p.rotation != nullptr) {
        float *rotated = frame.take(count);
        const Matrix blocks{x, int(count / p.block), p.block, p.block};
        multiply(blocks, p.rotation, p.block, nullptr, rotated, p.block, threads);
        x = rotated;
    }
    if (p.largest_code != 0.0f) {
        float *rounded = const_cast<float *>(x);
        if (p.permutation == nullptr && p.rotation == nullptr) {
            rounded = frame.take(count);
            std::memcpy(rounded, x, sizeof(float) * count);
        }
        round_rows(rounded, rows, p.inputs, p.largest_code);
        x = rounded;
    }
    return x;
}

int outputs_of(const Product *products, int count) {
    int outputs = 0;
    for (int i = 0; i < count; ++i) outputs += products[i].outputs;
    return outputs;
}

// Products of the same input (rows, inputs), side by side: (rows, all outputs).
void multiply_all(const Product *products, int count, const float *x, int rows, float *y, int threads) {
    const int stride = outputs_of(products, count);
    for (int i = 0; i < count; ++i) {
        Frame frame;
        const Product &p = products[i];
        const float *input = transformed(p, x, rows, threads, frame);
        multiply({input, rows, p.inputs, p.inputs}, p.panels, p.outputs, p.bias, y, stride, threads);
        y += p.outputs;
    }
}

// e to the power of x, within 1e-7 of it relatively. Source: Cephes, expf.
inline float power_of_e(float x) {
    x = std::min(std::max(x, -87.3f), 88.0f);
    const float n = std::rint(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f;
    r -= n * -2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    const int32_t bits = (int32_t(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof(scale));
    return y * scale;
}

// GELU with tanh: x (1 + tanh(u)) / 2 = x / (1 + exp(-2u)).
inline float gelu(float x) {
    const float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return x / (1.0f + power_of_e(-2.0f * u));
}

float root_mean_square_inverse(const float *x, int width) {
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int i = 0; i < width; ++i) squares += x[i] * x[i];
    return 1.0f / std::sqrt(squares / width + RMS_EPS);
}

// RMS norm times factor plus shift (null: none).
void rms_norm(const float *x, int rows, int width, const float *factor, const float *shift, float *y) {
    for (int row = 0; row < rows; ++row, x += width, y += width) {
        const float inverse = root_mean_square_inverse(x, width);
        if (shift == nullptr) {
#pragma omp simd
            for (int i = 0; i < width; ++i) y[i] = x[i] * inverse * factor[i];
        } else {
#pragma omp simd
            for (int i = 0; i < width; ++i) y[i] = x[i] * inverse * factor[i] + shift[i];
        }
    }
}

void layer_norm(const float *x, int rows, int width, const Norm &norm, float *y) {
    for (int row = 0; row < rows; ++row, x += width, y += width) {
        float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < width; ++i) sum += x[i];
        const float mean = sum / width;
#pragma omp simd reduction(+ : squares)
        for (int i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
        const float inverse = 1.0f / std::sqrt(squares / width + LAYER_EPS);
#pragma omp simd
        for (int i = 0; i < width; ++i) y[i] = (x[i] - mean) * inverse * norm.weight[i] + norm.bias[i];
    }
}

// x += update, or x += update * gate.
void add_to(float *x, const float *update, const float *gate, int rows, int width) {
    for (int row = 0; row < rows; ++row, x += width, update += width) {
        if (gate == nullptr) {
#pragma omp simd
            for (int i = 0; i < width; ++i) x[i] += update[i];
        } else {
#pragma omp simd
            for (int i = 0; i < width; ++i) x[i] += update[i] * gate[i];
        }
    }
}

// Rotary positions of one token's heads; channel i pairs with i + head_dim / 2.
void rotate_heads(float *x, int heads, int head_dim, const float *cosines, const float *sines) {
    const int half = head_dim / 2;
    for (int head = 0; head < heads; ++head, x += head_dim) {
#pragma omp simd
        for (int i = 0; i < half; ++i) {
            const float first = x[i], second = x[half + i];
            x[i] = first * cosines[i] - second * sines[i];
            x[half + i] = second * cosines[i] + first * sines[i];
        }
    }
}

void softmax(float *scores, int rows, int columns, float scale) {
    for (int row = 0; row < rows; ++row, scores += columns) {
        float largest = scores[0], sum = 0.0f;
#pragma omp simd reduction(max : largest)
        for (int i = 0; i < columns; ++i) largest = std::max(largest, scores[i]);
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < columns; ++i) {
            scores[i] = power_of_e((scores[i] - largest) * scale);
            sum += scores[i];
        }
        const float inverse = 1.0f / sum;
#pragma omp simd
        for (int i = 0; i < columns; ++i) scores[i] *= inverse;
    }
}

struct KeysValues {
    const float *keys, *values;  // (tokens, head_dim) of one head
    long stride;                 // from token to token
    int tokens;
};

// Keys and values of one head, of one or two sources, in panels.
void pack_keys_values(const KeysValues *sources, int count, int head_dim, int tokens, float *keys, float *values) {
    // A panel's elements of a token lie PANEL apart in keys; values of a token are together.
    int token = 0;
    for (int source = 0; source < count; ++source) {
        const KeysValues &from = sources[source];
        for (int i = 0; i < from.tokens; ++i, ++token) {
            const float *key = from.keys + i * from.stride, *value = from.values + i * from.stride;
            float *to = keys + size_t(token / PANEL) * PANEL * head_dim + token % PANEL;
            for (int d = 0; d < head_dim; ++d) to[size_t(d) * PANEL] = key[d];
            for (int first = 0; first < head_dim; first += PANEL) {
                const int width = std::min(PANEL, head_dim - first);
                float *panel = values + size_t(first) * tokens + size_t(token) * PANEL;
                std::memcpy(panel, value + first, sizeof(float) * width);
                std::fill(panel + width, panel + PANEL, 0.0f);
            }
        }
    }
    for (; token % PANEL != 0; ++token)
        for (int d = 0; d < head_dim; ++d)
            keys[size_t(token / PANEL) * PANEL * head_dim + size_t(d) * PANEL + token % PANEL] = 0.0f;
}

// Attention of one batch item's tokens: qkv (tokens, all heads of q, k and v) gives mixed (tokens, heads * head_dim).
void attend(const Attention &a, const float *qkv, int tokens, const KeysValues *earlier, float *mixed, int threads) {
    const int qkv_width = (a.heads + 2 * a.kv_heads) * a.head_dim, mixed_width = a.heads * a.head_dim;
    const int group = a.heads / a.kv_heads;
    const float scale = 1.0f / std::sqrt(float(a.head_dim));
    for (int kv = 0; kv < a.kv_heads; ++kv) {
        Frame frame;
        KeysValues sources[2];
        int count = 0, all = tokens;
        if (earlier != nullptr) {
            sources[count++] = earlier[kv];
            all += earlier[kv].tokens;
        }
        const float *own = qkv + size_t(a.heads + kv) * a.head_dim;
        sources[count++] = {own, own + size_t(a.kv_heads) * a.head_dim, qkv_width, tokens};
        float *keys = frame.take(panels_size(a.head_dim, all));
        float *values = frame.take(panels_size(all, a.head_dim));
        float *scores = frame.take(size_t(tokens) * all);
        pack_keys_values(sources, count, a.head_dim, all, keys, values);
        for (int head = kv * group; head < (kv + 1) * group; ++head) {
            multiply({qkv + size_t(head) * a.head_dim, tokens, a.head_dim, qkv_width}, keys, all, nullptr, scores, all,
                     threads);
            softmax(scores, tokens, all, scale);
            multiply({scores, tokens, all, all}, values, a.head_dim, nullptr, mixed + size_t(head) * a.head_dim,
                     mixed_width, threads);
        }
    }
}

// The gated MLP: GELU of the first half of the inputs' product, times the second half; or GELU of all of it.
void mlp(const Mlp &m, bool gated, const float *x, int rows, float *update, int threads) {
    Frame frame;
    const int width = outputs_of(m.inputs, m.input_products), hidden = gated ? width / 2 : width;
    float *wide = frame.take(size_t(rows) * width), *active = frame.take(size_t(rows) * hidden);
    multiply_all(m.inputs, m.input_products, x, rows, wide, threads);
    for (int row = 0; row < rows; ++row) {
        const float *from = wide + size_t(row) * width;
        float *to = active + size_t(row) * hidden;
        if (gated) {
#pragma omp simd
            for (int i = 0; i < hidden; ++i) to[i] = gelu(from[i]) * from[hidden + i];
        } else {
#pragma omp simd
            for (int i = 0; i < hidden; ++i) to[i] = gelu(from[i]);
        }
    }
    multiply_all(m.output, 1, active, rows, update, threads);
}

// q, k and v of all rows, with rotary positions; table: cosines and sines, (tokens, head_dim / 2) each.
void gemma_qkv(const Attention &a, const float *x, int batch, int tokens, const float *cosines, const float *sines,
               float *qkv, int threads) {
    const int half = a.head_dim / 2, width = (a.heads + 2 * a.kv_heads) * a.head_dim;
    multiply_all(a.inputs, a.input_products, x, batch * tokens, qkv, threads);
    for (int row = 0; row < batch * tokens; ++row) {
        const size_t place = size_t(row % tokens) * half;
        rotate_heads(qkv + size_t(row) * width, a.heads + a.kv_heads, a.head_dim, cosines + place, sines + place);
    }
}

// A layer of the action expert; x: (batch, tokens, width), replaced by its result.
// keys, values: (batch, kv_heads, earlier, head_dim), of the prefix.
// attention_modulation, mlp_modulation: factor, shift and gate, (3, width) for all items, or for each of them if
// modulations is their number.
void expert_layer(const Layer &l, float *x, int batch, int tokens, const float *cosines, const float *sines,
                  const float *keys, const float *values, int earlier, const float *attention_modulation,
                  const float *mlp_modulation, int modulations) {
    const Attention &a = l.attention;
    const int rows = batch * tokens, width = l.width, heads_width = a.heads * a.head_dim;
    const int qkv_width = (a.heads + 2 * a.kv_heads) * a.head_dim;
    const size_t each = modulations > 1 ? size_t(3) * width : 0, item_size = size_t(tokens) * width;
    Frame frame;
    float *normed = frame.take(size_t(rows) * width), *update = frame.take(size_t(rows) * width);
    float *qkv = frame.take(size_t(rows) * qkv_width), *mixed = frame.take(size_t(rows) * heads_width);
    for (int item = 0; item < batch; ++item) {
        const float *factor = attention_modulation + item * each;
        rms_norm(x + item * item_size, tokens, width, factor, factor + width, normed + item * item_size);
    }
    gemma_qkv(a, normed, batch, tokens, cosines, sines, qkv, l.threads);
    std::vector<KeysValues> prefix(a.kv_heads);
    for (int item = 0; item < batch; ++item) {
        for (int head = 0; head < a.kv_heads; ++head) {
            const size_t place = size_t(item * a.kv_heads + head) * earlier * a.head_dim;
            prefix[head] = {keys + place, values + place, a.head_dim, earlier};
        }
        attend(a, qkv + size_t(item) * tokens * qkv_width, tokens, prefix.data(),
               mixed + size_t(item) * tokens * heads_width, l.threads);
    }
    multiply_all(a.output, 1, mixed, rows, update, l.threads);
    for (int item = 0; item < batch; ++item) {
        const float *gate = attention_modulation + item * each + 2 * width, *factor = mlp_modulation + item * each;
        add_to(x + item * item_size, update + item * item_size, gate, tokens, width);
        rms_norm(x + item * item_size, tokens, width, factor, factor + width, normed + item * item_size);
    }
    mlp(l.mlp, true, normed, rows, update, l.threads);
    for (int item = 0; item < batch; ++item)
        add_to(x + item * item_size, update + item * item_size, mlp_modulation + item * each + 2 * width, tokens,
               width);
}

}  // namespace

extern "C" {

int panel_outputs() { return PANEL; }

// Panels of a weight (outputs, inputs), or of a matrix (inputs, outputs) if `transposed` is 0.
void pack_panels(const float *matrix, int inputs, int outputs, int transposed, float *panels) {
    pack(matrix, transposed ? 1 : outputs, transposed ? inputs : 1, inputs, outputs, panels);
}

// A layer of the image encoder; x: (images, tokens, width), replaced by its result.
void vision_layer(const Layer *layer, float *x, int images, int tokens) {
    const Layer &l = *layer;
    const Attention &a = l.attention;
    const int rows = images * tokens, width = l.width, heads_width = a.heads * a.head_dim;
    Frame frame;
    float *normed = frame.take(size_t(rows) * width), *update = frame.take(size_t(rows) * width);
    float *qkv = frame.take(size_t(rows) * 3 * heads_width), *mixed = frame.take(size_t(rows) * heads_width);
    layer_norm(x, rows, width, l.before_attention, normed);
    multiply_all(a.inputs, a.input_products, normed, rows, qkv, l.threads);
    for (int image = 0; image < images; ++image)
        attend(a, qkv + size_t(image) * tokens * 3 * heads_width, tokens, nullptr,
               mixed + size_t(image) * tokens * heads_width, l.threads);
    multiply_all(a.output, 1, mixed, rows, update, l.threads);
    add_to(x, update, nullptr, rows, width);
    layer_norm(x, rows, width, l.before_mlp, normed);
    mlp(l.mlp, false, normed, rows, update, l.threads);
    add_to(x, update, nullptr, rows, width);
}

// A layer of the language model; x: (batch, tokens, width), replaced by its result. The norms' weights are 1 + weight.
// keys, values: (batch, kv_heads, tokens, head_dim), written.
void prefix_layer(const Layer *layer, float *x, int batch, int tokens, const float *cosines, const float *sines,
                  float *keys, float *values) {
    const Layer &l = *layer;
    const Attention &a = l.attention;
    const int rows = batch * tokens, width = l.width, heads_width = a.heads * a.head_dim;
    const int qkv_width = (a.heads + 2 * a.kv_heads) * a.head_dim;
    Frame frame;
    float *normed = frame.take(size_t(rows) * width), *update = frame.take(size_t(rows) * width);
    float *qkv = frame.take(size_t(rows) * qkv_width), *mixed = frame.take(size_t(rows) * heads_width);
    rms_norm(x, rows, width, l.before_attention.weight, nullptr, normed);
    gemma_qkv(a, normed, batch, tokens, cosines, sines, qkv, l.threads);
    for (int item = 0; item < batch; ++item) {
        const float *own = qkv + size_t(item) * tokens * qkv_width;
        attend(a, own, tokens, nullptr, mixed + size_t(item) * tokens * heads_width, l.threads);
        for (int head = 0; head < a.kv_heads; ++head)
            for (int token = 0; token < tokens; ++token) {
                const float *key = own + size_t(token) * qkv_width + size_t(a.heads + head) * a.head_dim;
                const size_t place = (size_t(item * a.kv_heads + head) * tokens + token) * a.head_dim;
                std::memcpy(keys + place, key, sizeof(float) * a.head_dim);
                std::memcpy(values + place, key + size_t(a.kv_heads) * a.head_dim, sizeof(float) * a.head_dim);
            }
    }
    multiply_all(a.output, 1, mixed, rows, update, l.threads);
    add_to(x, update, nullptr, rows, width);
    rms_norm(x, rows, width, l.before_mlp.weight, nullptr, normed);
    mlp(l.mlp, true, normed, rows, update, l.threads);
    add_to(x, update, nullptr, rows, width);
}

// The flow's velocity at noisy actions (batch, tokens, action_dim), of the same shape.
// keys, values: of the prefix, (batch, kv_heads, earlier, head_dim) for each layer.
// modulation: (2 * depth + 1, modulations, 3, width): of each norm, for all items or for each.
void expert_velocity(const Expert *expert, const float *actions, int batch, int tokens, const float *cosines,
                     const float *sines, const float *const *keys, const float *const *values, int earlier,
                     const float *modulation, int modulations, float *velocity) {
    const Layer *layers = expert->layers;
    const int rows = batch * tokens, width = layers[0].width, threads = layers[0].threads;
    const size_t norm_size = size_t(modulations) * 3 * width, item_size = size_t(tokens) * width;
    Frame frame;
    float *x = frame.take(size_t(rows) * width), *normed = frame.take(size_t(rows) * width);
    multiply_all(expert->from_actions, 1, actions, rows, x, threads);
    for (int i = 0; i < expert->depth; ++i) {
        const float *norms = modulation + 2 * i * norm_size;
        expert_layer(layers[i], x, batch, tokens, cosines, sines, keys[i], values[i], earlier, norms,
                     norms + norm_size, modulations);
    }
    for (int item = 0; item < batch; ++item) {
        const float *factor = modulation + 2 * expert->depth * norm_size + (modulations > 1 ? item * 3 * width : 0);
        rms_norm(x + item * item_size, tokens, width, factor, factor + width, normed + item * item_size);
    }
    multiply_all(expert->to_velocity, 1, normed, rows, velocity, threads);
}

}  // extern "C"
