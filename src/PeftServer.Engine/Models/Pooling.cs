using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>How the states of a text's tokens become one vector.</summary>
public enum PoolingMode
{
    /// <summary>That of the first token.</summary>
    First,

    /// <summary>The mean.</summary>
    Mean,

    /// <summary>The largest value of each dimension.</summary>
    Max,

    /// <summary>The sum over the root of the length.</summary>
    MeanSqrtLength,

    /// <summary>The mean, later tokens counting more: the i-th as i.</summary>
    WeightedMean,

    /// <summary>That of the last token.</summary>
    Last,
}

/// <summary>One vector for each sequence out of the states of its tokens; several modes stand one after another in it.</summary>
public sealed class Pooling(IReadOnlyList<PoolingMode> modes)
{
    private static readonly (string Flag, string Name, PoolingMode Mode)[] Modes =
    [
        ("pooling_mode_cls_token", "cls", PoolingMode.First),
        ("pooling_mode_max_tokens", "max", PoolingMode.Max),
        ("pooling_mode_mean_tokens", "mean", PoolingMode.Mean),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", PoolingMode.MeanSqrtLength),
        ("pooling_mode_weightedmean_tokens", "weightedmean", PoolingMode.WeightedMean),
        ("pooling_mode_lasttoken", "lasttoken", PoolingMode.Last),
    ];

    private static readonly long[] Tokens = [0];

    /// <summary>The modes that the <c>config.json</c> of a pooling module names.</summary>
    public static Pooling Read(string folder)
    {
        var config = PretrainedConfig.Read(folder);
        var named = config.Has("pooling_mode") ? config.TextsOrParts("pooling_mode", ',') : [];
        if (named.FirstOrDefault(name => !Modes.Any(mode => mode.Name == name)) is { } other)
        {
            throw new CheckpointException($"{folder}: pooling_mode '{other}' is not supported.");
        }

        PoolingMode[] modes = [.. Modes.Where(mode => config.Flag(mode.Flag, false) || named.Contains(mode.Name)).Select(mode => mode.Mode)];
        return modes.Length > 0 ? new Pooling(modes) : throw new CheckpointException($"{folder}: config.json names no way of pooling.");
    }

    /// <summary>hidden [n, width]; the result is [sequences, width · modes], in the type of hidden.</summary>
    public Tensor Of(Tensor hidden, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        var rows = Enumerable.Range(0, batch.SequenceCount).Select(i =>
        {
            var own = hidden.narrow(0, batch.Starts[i], batch.Starts[i + 1] - batch.Starts[i]).to(ScalarType.Float32); // [tokens, width]
            return cat([.. modes.Select(mode => Of(own, mode))], 0);
        }).ToArray();
        return stack(rows, 0).to(hidden.dtype).MoveToOuterDisposeScope();
    }

    /// <summary>The mean of each sequence's states.</summary>
    public static Tensor Mean(Tensor hidden, ForwardBatch batch) => new Pooling([PoolingMode.Mean]).Of(hidden, batch);

    private static Tensor Of(Tensor own, PoolingMode mode)
    {
        var length = own.size(0);
        switch (mode)
        {
            case PoolingMode.First:
                return own.select(0, 0);
            case PoolingMode.Last:
                return own.select(0, length - 1);
            case PoolingMode.Max:
                return own.amax(Tokens);
            case PoolingMode.MeanSqrtLength:
                return own.sum(Tokens).Times(1 / Math.Sqrt(length));
            case PoolingMode.WeightedMean:
                var weights = tensor(Enumerable.Range(1, (int)length).Select(i => (float)(i / (length * (length + 1) / 2.0))).ToArray(), device: own.device);
                return own.mul(weights.unsqueeze(1)).sum(Tokens);
            default:
                return own.mean(Tokens);
        }
    }
}
