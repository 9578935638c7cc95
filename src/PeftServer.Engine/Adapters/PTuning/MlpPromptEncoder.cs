using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.PTuning;

/// <summary>W₃ relu(W₂ relu(W₁ e + b₁) + b₂) + b₃ of a table.</summary>
internal sealed class MlpPromptEncoder(int rows, int width, int hidden) : PromptEncoder
{
    private readonly Weight _table = new(rows, width) { Trainable = true };
    private readonly DenseLayer[] _layers =
        [new("mlp_head.0", width, hidden), new("mlp_head.2", hidden, hidden), new("mlp_head.4", hidden, width)];

    public override IEnumerable<(string Name, Weight Weight)> Weights => [("embedding.weight", _table), .. _layers.SelectMany(layer => layer.Weights)];

    public override Tensor Encode()
    {
        using var scope = NewDisposeScope();
        var inner = _layers[1].Forward(_layers[0].Forward(_table.Value).relu()).relu(); // [rows, hidden]
        return _layers[2].Forward(inner).MoveToOuterDisposeScope(); // [rows, width]
    }

    public override void Initialize(PretrainedModel model, Generator generator)
    {
        _table.Normal(1, generator, model.Device);
        Array.ForEach(_layers, layer => layer.Initialize(generator, model.Device));
    }
}
