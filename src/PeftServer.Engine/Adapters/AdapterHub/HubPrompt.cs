using PeftServer.Engine.Adapters.PromptTuning;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>Trained rows behind the embeddings, where a batch has room for a prompt.</summary>
internal sealed class HubPrompt : HiddenPart
{
    private readonly Weight _rows; // (length, width)

    public HubPrompt(HubPromptConfig config, HubAdapter adapter, int width)
    {
        Length = config.PromptLength;
        _rows = adapter.Share("prompt_tuning.prompt_tunings", "prompt_embedding.weight", () => new Weight(config.PromptLength, width) { Trainable = true }, (weight, generator, device) =>
        {
            if (config.PromptInit == "from_string")
            {
                PromptTuning.PromptInit.Draw(weight, PromptTuningInit.Text, config.PromptInitText, adapter.Model, generator);
            }
            else
            {
                weight.Uniform(config.RandomUniformScale, generator, device);
            }
        });
    }

    public int Length { get; }

    /// <summary>The rows stand with the model, not at this place.</summary>
    public override IEnumerable<(string Name, Weight Weight)> State => [];

    public override Tensor Forward(Tensor x, ForwardBatch batch, AdapterRun run)
    {
        using var scope = NewDisposeScope();
        var (pieces, at) = (new List<Tensor>(), 0);
        foreach (var sequence in batch.SequencesOf(run).Where(sequence => sequence.PromptRows > 0))
        {
            pieces.Add(x.narrow(0, at, sequence.Start - at));
            pieces.Add(_rows.Value.to(x.dtype));
            at = sequence.Start + Length;
        }

        pieces.Add(x.narrow(0, at, x.size(0) - at));
        return cat([.. pieces], 0).MoveToOuterDisposeScope(); // [n, width]
    }

    public override void Initialize(Generator generator, Device device)
    {
    }
}
