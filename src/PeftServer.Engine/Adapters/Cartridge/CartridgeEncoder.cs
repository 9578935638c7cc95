using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Cartridge;

/// <summary>Rows of which the first do not train.</summary>
internal sealed class CartridgeEncoder(int tokens, int frozen, int width) : PromptEncoder
{
    private readonly Weight? _frozen = frozen > 0 ? new(frozen, width) : null;
    private readonly Weight _trainable = new(tokens - frozen, width) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> Weights =>
        _frozen is null ? [("trainable_embedding", _trainable)] : [("frozen_embedding", _frozen), ("trainable_embedding", _trainable)];

    public override Tensor Encode() => _frozen is null ? _trainable.Value.alias() : cat([_frozen.Value, _trainable.Value], 0); // [P, width]

    public override void Initialize(PretrainedModel model, Generator generator)
    {
        _frozen?.Normal(1, generator, model.Device);
        _trainable.Normal(1, generator, model.Device);
    }

    public override void Take(Tensor rows)
    {
        _frozen?.Set(rows.narrow(0, 0, frozen).to(ScalarType.Float32, copy: true));
        _trainable.Set(rows.narrow(0, frozen, tokens - frozen).to(ScalarType.Float32, copy: true));
    }
}
