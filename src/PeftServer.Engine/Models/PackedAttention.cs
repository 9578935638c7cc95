namespace PeftServer.Engine.Models;

/// <summary>
/// Whole sequences one after another: each attends to itself, causally, with gradients. Where adapters put keys and values before the
/// sequences, every sequence sees them first.
/// </summary>
/// <param name="starts">Where each sequence begins, and at the end how many tokens there are.</param>
/// <param name="prefixes">What each sequence sees first; null: nothing.</param>
internal sealed class PackedAttention(IReadOnlyList<int> starts, Func<int, IReadOnlyList<AttentionPrefix>>? prefixes = null) : AttentionBackend
{

    public override Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        if (starts.Count == 2 && prefixes is null)
        {
            return AttendOne(q, k, v, options);
        }

        using var scope = NewDisposeScope();
        var outputs = new Tensor[starts.Count - 1];
        for (var i = 0; i < outputs.Length; i++)
        {
            var (start, length) = (starts[i], starts[i + 1] - starts[i]);
            var (keys, values) = AttentionPrefix.Before(prefixes?.Invoke(i) ?? [], layer, i, k.narrow(0, start, length), v.narrow(0, start, length));
            outputs[i] = AttendOne(q.narrow(0, start, length), keys, values, options);
        }

        return cat(outputs, 0).MoveToOuterDisposeScope(); // [n, H, D]
    }
}

/// <summary>
/// Rows of one width of which only the first tokens are real. These attend as if there were no padding; padding attends to all of them,
/// and nothing to padding.
/// </summary>
internal sealed class PaddedAttention(int width, IReadOnlyList<int> lengths, IReadOnlyList<AttentionPrefix>? prefixes = null) : AttentionBackend
{
    private readonly IReadOnlyList<AttentionPrefix> _prefixes = prefixes ?? [];

    public override Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        if (options.Bias is not null || options.Window is not null)
        {
            throw new NotSupportedException("Padded rows are for models that see whole rows and know positions by their embeddings.");
        }

        using var scope = NewDisposeScope();
        var outputs = lengths.SelectMany((length, row) =>
        {
            var (keys, values) = AttentionPrefix.Before(_prefixes, layer, row, k.narrow(0, row * width, length), v.narrow(0, row * width, length));
            var real = AttendOne(q.narrow(0, row * width, length), keys, values, options);
            return length == width ? [real] : new[] { real, AttendOne(q.narrow(0, (row * width) + length, width - length), keys, values, options with { Bidirectional = true }) };
        }).ToArray();
        return cat(outputs, 0).MoveToOuterDisposeScope(); // [n, H, D]
    }
}
