using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// The checks of adapters with gates. The library's gate is a mean over a row, its padding included, so the rectangle of the reference goes
/// through the model as it is.
/// </summary>
internal sealed class GatedCase(Golden golden, PretrainedModel model) : IModelCase
{
    public void CheckForward(string name, IReadOnlyList<Adapter> adapters, double tolerance = 1e-4)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        Golden.ShouldAgree(name, Predict(adapters), model is ClassificationModel ? golden[name] : Real(golden[name].flatten(0, 1)), tolerance);
    }

    public Tensor TrainingLoss(IReadOnlyList<Adapter> adapters) => model is ClassificationModel
        ? F.cross_entropy(Predict(adapters), golden["labels"])
        : ((CausalCase)CausalCase.Of(golden, model)).Loss(Predict(adapters), golden.Rows().Places);

    /// <summary>Eight greedy tokens; the rows, padded on the left, go through the model anew for each.</summary>
    public void CheckGreedy(IReadOnlyList<Adapter> adapters)
    {
        if (model is not CausalLanguageModel causal)
        {
            golden.Has("greedy_ids").ShouldBeFalse();
            return;
        }

        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        var (ids, mask) = (golden["prompt_ids"], golden["prompt_mask"]);
        for (var step = 0; step < 8; step++)
        {
            var width = ids.size(1);
            var positions = mask.cumsum(1).Plus(-1).to(ScalarType.Int64).where(mask.ne(zeros_like(mask)), ones_like(mask)); // padding stands at 1
            using var batch = ForwardBatch.Rows(ids, positions, adapters, prefixes => new LeftPaddedAttention(mask, prefixes));
            var lasts = tensor(Enumerable.Range(1, (int)ids.size(0)).Select(row => (row * width) - 1).ToArray());
            var logits = causal.Logits(causal.Hidden(batch).index_select(0, lasts), batch);
            logits.narrow(1, 1, 1).fill_(TensorArithmetic.NegativeInfinity);
            ids = cat([ids, logits.argmax(-1).unsqueeze(1)], 1);
            mask = cat([mask, ones(mask.size(0), 1, dtype: ScalarType.Int64)], 1);
        }

        ids.data<long>().ToArray().ShouldBe(golden["greedy_ids"].data<long>().ToArray());
    }

    /// <summary>Scores of each row, or of every real token.</summary>
    private Tensor Predict(IReadOnlyList<Adapter> adapters)
    {
        using var batch = ForwardBatch.Padded(golden.Rows().Rows, 0, adapters, CPU);
        return model switch
        {
            ClassificationModel classifier => classifier.Predict(batch),
            CausalLanguageModel causal => Real(causal.Logits(causal.Hidden(batch), batch)),
            _ => throw new NotSupportedException($"{model.GetType().Name} has no gated cases."),
        };
    }

    private Tensor Real(Tensor padded) => padded.index_select(0, tensor(golden.Rows().Places.SelectMany(at => at).ToArray()));

    /// <summary>Causal rows with padding on the left, in eager arithmetic: what is not seen has the least score there is.</summary>
    private sealed class LeftPaddedAttention(Tensor mask, IReadOnlyList<AttentionPrefix> prefixes) : AttentionBackend
    {
        public override Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options)
        {
            using var scope = NewDisposeScope();
            var width = mask.size(1);
            using var least = float.MinValue.ToScalar();
            var rows = Enumerable.Range(0, (int)mask.size(0)).Select(row =>
            {
                var (keys, values) = AttentionPrefix.Before(prefixes, layer, row, k.narrow(0, row * width, width), v.narrow(0, row * width, width));
                var unseen = mask[row].eq(zeros_like(mask[row])).unsqueeze(0).logical_or(ones(width, width, dtype: ScalarType.Bool).tril().logical_not()); // [T, T]
                unseen = cat([zeros(width, keys.size(0) - width, dtype: ScalarType.Bool), unseen], 1); // [T, P + T]
                var scores = q.narrow(0, row * width, width).transpose(0, 1).bmm(keys.permute(1, 2, 0)).Times(options.Scale).masked_fill(unseen, least); // [H, T, P + T]
                return scores.softmax(-1).bmm(values.transpose(0, 1)).transpose(0, 1);
            }).ToArray();
            return cat(rows, 0).MoveToOuterDisposeScope(); // [n, H, D]
        }
    }
}
