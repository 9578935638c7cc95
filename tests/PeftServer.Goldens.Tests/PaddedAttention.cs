using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Goldens.Tests;

/// <summary>Rows of one width whose padding goes through the model too, unseen by the other tokens: causal, as PEFT computes it.</summary>
/// <param name="mask">1 for a token, 0 for padding: [rows, width].</param>
internal sealed class PaddedAttention(Tensor mask) : AttentionBackend
{
    public override Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        using var scope = NewDisposeScope();
        var (rows, width, repeats) = (mask.size(0), mask.size(1), q.size(1) / k.size(1));
        Tensor Heads(Tensor x, long copies) => x.repeat_interleave(copies, 1).view(rows, width, q.size(1), -1).transpose(1, 2).reshape(rows * q.size(1), width, -1); // [rows·H, width, D]
        var seen = mask.to_type(ScalarType.Bool).unsqueeze(1).logical_and(ones(width, width, dtype: ScalarType.Bool).tril()); // [rows, width, width]
        var hidden = seen.logical_not().repeat_interleave(q.size(1), 0); // [rows·H, width, width]
        var scores = Heads(q, 1).bmm(Heads(k, repeats).transpose(1, 2)).Times(options.Scale).masked_fill(hidden, TensorArithmetic.NegativeInfinity);
        var y = scores.softmax(-1).bmm(Heads(v, repeats)); // [rows·H, width, D]
        return y.view(rows, q.size(1), width, -1).transpose(1, 2).reshape(rows * width, q.size(1), -1).MoveToOuterDisposeScope();
    }
}
