using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Training;

/// <summary>Cross-entropy of the trained tokens. Only their hidden states go through the head: a prompt costs no logits.</summary>
internal static class SftLoss
{
    /// <summary>
    /// Sum of −log p over the targets of <paramref name="batch"/> (a scalar with gradients), and how many of them the model would
    /// have chosen (a scalar without).
    /// </summary>
    public static (Tensor Sum, Tensor Correct) Compute(CausalLanguageModel model, IReadOnlyList<Adapter> adapters, SftBatch batch, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        var device = model.Device;
        using var forward = ForwardBatch.Packed(batch.Sequences, adapters, device, dropout);
        var hidden = model.Hidden(forward).index_select(0, tensor(batch.Sources, device: device)); // [m, hidden]
        var logits = model.Logits(hidden, forward).to(ScalarType.Float32); // [m, vocab]
        var targets = tensor(batch.Targets, device: device); // [m]

        var sum = F.cross_entropy(logits, targets, reduction: nn.Reduction.Sum);
        using var frozen = no_grad();
        var correct = logits.argmax(-1).eq(targets).sum();
        return (sum.MoveToOuterDisposeScope(), correct.MoveToOuterDisposeScope());
    }
}
