using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// What the larger DeBERTa v2 models have beside their first layer: a convolution over neighbouring tokens, added to what the layer gives.
/// </summary>
internal sealed class DebertaV2ConvolutionLayer : Module
{
    public readonly TokenConvolution conv;
    public readonly LayerNorm LayerNorm;
    private readonly Func<Tensor, Tensor> _act;

    public DebertaV2ConvolutionLayer(PretrainedConfig config)
    {
        var (hidden, width, groups) = (config.Int("hidden_size"), config.Int("conv_kernel_size"), config.Int("conv_groups", 1));
        if (width % 2 == 0)
        {
            throw config.Unsupported("conv_kernel_size", width); // the sum would be of texts of two lengths
        }

        if (groups <= 0 || hidden % groups != 0)
        {
            throw config.Unsupported("conv_groups", groups);
        }

        conv = new TokenConvolution(hidden, width, groups);
        LayerNorm = new LayerNorm(hidden, config.Number("layer_norm_eps", 1e-7));
        _act = Activation.Of(config, "conv_act", "tanh");
    }

    /// <summary>x is what went into the first layer, y what came out of it: both [n, hidden], and so is the result.</summary>
    public Tensor Forward(Tensor x, Tensor y, ForwardBatch batch)
    {
        using var scope = NewDisposeScope();
        return LayerNorm.Forward(y.Plus(_act(conv.Forward(conv.Windows(x, batch.Starts), batch))), batch).MoveToOuterDisposeScope();
    }
}

/// <summary><c>torch.nn.Conv1d</c> over the tokens of each sequence, as many out as in; beyond a sequence's ends all is zero.</summary>
internal sealed class TokenConvolution(int width, int reach, int groups) : Site
{
    public readonly Weight weight = new(width, width / groups, reach);
    public readonly Weight bias = new(width);

    public override Weight Weight => weight;

    public override Weight Bias => bias;

    /// <summary>The neighbours of each token, itself in the middle: [n, reach, width].</summary>
    public Tensor Windows(Tensor x, IReadOnlyList<int> starts)
    {
        using var scope = NewDisposeScope();
        var (count, half) = (starts[^1], reach / 2);
        var places = new long[count * reach];
        for (var i = 0; i + 1 < starts.Count; i++)
        {
            for (var at = starts[i]; at < starts[i + 1]; at++)
            {
                for (var j = 0; j < reach; j++)
                {
                    var place = at + j - half;
                    places[(at * reach) + j] = place >= starts[i] && place < starts[i + 1] ? place : count; // the row of zeros
                }
            }
        }

        return cat([x, zeros_like(x.narrow(0, 0, 1))], 0).index_select(0, tensor(places, device: x.device)).view(count, reach, width).MoveToOuterDisposeScope();
    }

    /// <summary>x: [n, reach, width]; the result is [n, width].</summary>
    public override Tensor Compute(Tensor x, Tensor weight, Tensor? bias)
    {
        using var scope = NewDisposeScope();
        var (part, count) = (width / groups, x.size(0));
        var windows = x.view(count, reach, groups, part).permute(2, 0, 3, 1).reshape(groups, count, part * reach);
        var maps = weight.reshape(groups, part, part * reach).transpose(1, 2);
        var y = windows.bmm(maps).transpose(0, 1).reshape(count, width); // [n, width]
        return (bias is null ? y : y.Plus(bias)).MoveToOuterDisposeScope();
    }
}
