using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.PrefixTuning;

/// <summary>The prefix as a network of a smaller table: W₂ tanh(W₁ e + b₁) + b₂.</summary>
internal sealed class PrefixProjectionEncoder(int tokens, int tokenDim, int hidden, int width, bool startsAtZero) : PromptEncoder
{
    private readonly Weight _table = new(tokens, tokenDim) { Trainable = true };
    private readonly DenseLayer _inner = new("transform.0", tokenDim, hidden);
    private readonly DenseLayer _outer = new("transform.2", hidden, width);

    public override IEnumerable<(string Name, Weight Weight)> Weights => [("embedding.weight", _table), .. _inner.Weights, .. _outer.Weights];

    public override Tensor Encode()
    {
        using var scope = NewDisposeScope();
        return _outer.Forward(_inner.Forward(_table.Value).tanh()).MoveToOuterDisposeScope(); // [P, 2·L·G·D]
    }

    public override void Initialize(PretrainedModel model, Generator generator)
    {
        _table.Normal(1, generator, model.Device);
        _inner.Initialize(generator, model.Device);
        _outer.Initialize(generator, model.Device);
        if (startsAtZero)
        {
            _outer.Zeros(model.Device);
        }
    }
}
