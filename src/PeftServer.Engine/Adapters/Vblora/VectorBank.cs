using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Vblora;

/// <summary>The vectors [count, length] that all modules of a VB-LoRA adapter mix.</summary>
internal sealed class VectorBank(VbloraConfig config) : SharedWeights
{
    private readonly Weight _vectors = new(config.NumVectors, config.VectorLength) { Trainable = true };

    public override IEnumerable<(string Key, Weight Weight)> State => [("base_model.vblora_vector_bank", _vectors)];

    public override void Initialize(PretrainedModel model, Generator generator) => _vectors.Uniform(config.InitVectorBankBound, generator, model.Device);

    /// <summary>For logits [i, j, count] the mixes [i, j, length] of the best vectors.</summary>
    public Tensor Mix(Tensor logits)
    {
        var (best, places) = logits.topk(config.Topk, -1);
        var weights = F.softmax(best, -1).unsqueeze(-1); // [i, j, k, 1]
        var picked = _vectors.Value.index_select(0, places.flatten()).view([.. places.shape, config.VectorLength]);
        return picked.mul(weights).sum(-2);
    }
}
