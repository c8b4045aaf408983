// The gate's activation function. Both are gate * sigmoid(z): 1 + tanh(a) = 2 * sigmoid(2a).
float activated(float gate, bool gelu) {
    float z = gelu ? 1.5957691216 * (gate + 0.044715 * gate * gate * gate) : gate;
    return gate / (1.0 + exp(-z));
}
