namespace PeftServer.Goldens.Tests;

/// <summary>Mean cross-entropy of the next labels over the real tokens of a case's padded batch.</summary>
internal sealed class CausalLoss(Golden golden)
{
    /// <summary>The loss for logits of the real tokens, one after another; with gradients.</summary>
    public Tensor Of(Tensor logits)
    {
        var labels = golden["labels"].data<long>().ToArray();
        var (sources, targets) = (new List<long>(), new List<long>());
        var token = 0;
        foreach (var at in golden.Rows().Places)
        {
            for (var i = 0; i < at.Length; i++, token++)
            {
                if (i + 1 < at.Length && labels[at[i + 1]] != -100)
                {
                    sources.Add(token);
                    targets.Add(labels[at[i + 1]]);
                }
            }
        }

        return F.cross_entropy(logits.index_select(0, tensor(sources.ToArray())).to(ScalarType.Float32), tensor(targets.ToArray()));
    }
}
