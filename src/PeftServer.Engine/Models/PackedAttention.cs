namespace PeftServer.Engine.Models;

/// <summary>Whole sequences one after another: each attends to itself, causally, with gradients.</summary>
internal sealed class PackedAttention(IReadOnlyList<int> starts) : AttentionBackend
{
    public override Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        if (starts.Count == 2)
        {
            return AttendOne(q, k, v, options);
        }

        using var scope = NewDisposeScope();
        var outputs = new Tensor[starts.Count - 1];
        for (var i = 0; i < outputs.Length; i++)
        {
            var (start, length) = (starts[i], starts[i + 1] - starts[i]);
            outputs[i] = AttendOne(q.narrow(0, start, length), k.narrow(0, start, length), v.narrow(0, start, length), options);
        }

        return cat(outputs, 0).MoveToOuterDisposeScope(); // [n, H, D]
    }
}

/// <summary>Rows of one width of which only the first tokens are real: all attend to the real ones of their own row.</summary>
internal sealed class PaddedAttention(int width, IReadOnlyList<int> lengths) : AttentionBackend
{
    public override Tensor Attend(int layer, Tensor q, Tensor k, Tensor v, AttentionOptions options)
    {
        if (!options.Bidirectional || options.Bias is not null || options.Window is not null)
        {
            throw new NotSupportedException("Padded rows are for encoders that see whole rows and know positions by their embeddings.");
        }

        using var scope = NewDisposeScope();
        var outputs = lengths.Select((length, row) => AttendOne(q.narrow(0, row * width, width), k.narrow(0, row * width, length), v.narrow(0, row * width, length), options)).ToArray();
        return cat(outputs, 0).MoveToOuterDisposeScope(); // [n, H, D]
    }
}
