using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// Embeddings by contrast, under cosine similarity times a scale.
/// <list type="bullet">
/// <item>Multiple negatives ranking (<see href="https://arxiv.org/abs/1705.00652"/>, InfoNCE): documents are the positives of the batch, then each column of
/// hard negatives; anchor i shall pick document i. Mean over anchors of the cross-entropy; symmetric: the mean of that and of positives
/// picking their anchors.</item>
/// <item>CoSENT (<see href="https://kexue.fm/archives/8847"/>): log(1 + Σ exp(scale·(cosᵢ − cosⱼ))) over the pairs i, j of rows with labelᵢ &lt; labelⱼ.</item>
/// </list>
/// </summary>
internal static class Contrastive
{
    /// <param name="columns">Embeddings: anchors, positives, then any hard negatives; each [rows, width].</param>
    /// <param name="settings">The variant.</param>
    public static ObjectiveResult Loss(IReadOnlyList<Tensor> columns, EmbeddingSettings settings)
    {
        using var scope = NewDisposeScope();
        var unit = columns.Select(Unit).ToArray();
        var scores = unit[0].mm(cat(unit[1..], 0).t()).Times(settings.Scale); // [rows, documents]
        var rows = scores.size(0);
        var target = arange(rows, device: scores.device);
        var loss = F.cross_entropy(scores, target);
        if (settings.Symmetric)
        {
            loss = loss.Plus(F.cross_entropy(scores.narrow(1, 0, rows).t(), target)).Times(0.5);
        }

        using var frozen = no_grad();
        return new ObjectiveResult(loss, new Dictionary<string, Tensor> { ["accuracy"] = scores.argmax(-1).eq(target).to(ScalarType.Float32).mean() })
            .MoveToOuterDisposeScope();
    }

    /// <param name="first">One side of the pairs, [rows, width].</param>
    /// <param name="second">The other.</param>
    /// <param name="labels">How alike the sides are; only the order counts.</param>
    /// <param name="settings">The variant.</param>
    public static ObjectiveResult CosentLoss(Tensor first, Tensor second, IReadOnlyList<float> labels, EmbeddingSettings settings)
    {
        using var scope = NewDisposeScope();
        var similar = Unit(first).mul(Unit(second)).sum(-1).Times(settings.Scale); // [rows]
        var (lower, higher) = (new List<long>(), new List<long>());
        for (var i = 0; i < labels.Count; i++)
        {
            for (var j = 0; j < labels.Count; j++)
            {
                if (labels[i] < labels[j])
                {
                    lower.Add(i);
                    higher.Add(j);
                }
            }
        }

        var differences = similar.index_select(0, tensor(lower.ToArray(), device: similar.device))
            .Minus(similar.index_select(0, tensor(higher.ToArray(), device: similar.device)));
        var loss = cat([zeros(1, device: similar.device), differences], 0).logsumexp(0);
        return new ObjectiveResult(loss, new Dictionary<string, Tensor>()).MoveToOuterDisposeScope();
    }

    private static Tensor Unit(Tensor x) => x.div(x.square().sum(-1, keepdim: true).sqrt().AtLeast(1e-12));
}

/// <summary>Settings of embedding training.</summary>
public record EmbeddingSettings
{
    /// <summary>Factor of the cosines: the inverse of a temperature.</summary>
    [Range(1e-3, 1e4)]
    public double Scale { get; init; } = 20;

    /// <summary>Documents shall pick their anchors too.</summary>
    public bool Symmetric { get; init; }
}
