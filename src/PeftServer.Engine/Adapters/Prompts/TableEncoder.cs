using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Prompts;

/// <summary>A table of rows that train as they are: no network behind them.</summary>
internal class TableEncoder(int rows, int width, Action<Weight, PretrainedModel, Generator>? draw = null) : PromptEncoder
{
    protected Weight Table { get; } = new(rows, width) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> Weights => [("embedding.weight", Table)];

    public override Tensor Encode() => Table.Value.alias();

    public override void Initialize(PretrainedModel model, Generator generator)
    {
        if (draw is null)
        {
            Table.Normal(1, generator, model.Device); // as nn.Embedding starts
        }
        else
        {
            draw(Table, model, generator);
        }
    }

    public override void Take(Tensor rows) => Table.Set(rows.to(ScalarType.Float32, copy: true));
}
