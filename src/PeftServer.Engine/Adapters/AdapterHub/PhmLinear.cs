using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// A hypercomplex linear map, y = x Σᵢ ruleᵢ ⊗ Wᵢ + b, of <see href="https://arxiv.org/abs/2106.04647">Compacter</see>. Rules and
/// W may each be a product of two thin matrices, and be shared by all layers.
/// </summary>
internal sealed class PhmLinear : HubLinear
{
    private static readonly long[] First = [0];

    private readonly PhmFactors _rule;
    private readonly PhmFactors _w;
    private readonly bool _ownsRule;
    private readonly bool _ownsW;
    private readonly Weight? b; // (out)
    private readonly BottleneckConfig _config;
    private readonly int _in;
    private readonly int _out;

    public PhmLinear(BottleneckConfig config, int inFeatures, int outFeatures, PhmShared shared, string position)
    {
        if (inFeatures % config.PhmDim != 0 || outFeatures % config.PhmDim != 0)
        {
            throw new AdapterException("phm_dim", $"= {config.PhmDim} must divide both {inFeatures} and {outFeatures}. Change it or reduction_factor.");
        }

        (_config, _in, _out) = (config, inFeatures, outFeatures);
        (_ownsRule, _ownsW) = (shared.Rule is null, shared.Down is null);
        _rule = shared.Rule ?? PhmFactors.Rule(config, "phm_rule");
        _w = (position == "down" ? shared.Down : shared.Up) ?? PhmFactors.Matrices(config, inFeatures, outFeatures, "W");
        b = config.PhmBias ? new Weight(outFeatures) { Trainable = true } : null;
    }

    public override IEnumerable<(string Name, Weight Weight)> State
    {
        get
        {
            var own = (_ownsRule ? _rule.State : []).Concat(_ownsW ? _w.State : []);
            return b is null ? own : own.Append((nameof(b), b));
        }
    }

    public override Tensor Forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        var (rule, w) = (_rule.Value, _w.Value); // [d, d, d], [d, in/d, out/d]
        var (rows, columns) = (_in / _config.PhmDim, _out / _config.PhmDim);

        // Entry (a·rows + i, b·columns + j) of the sum is Σ rule[k, a, b] · W[k, i, j].
        var product = rule.flatten(1).t().mm(w.flatten(1)).view(_config.PhmDim, _config.PhmDim, rows, columns);
        var h = product.permute(0, 2, 1, 3).reshape(_in, _out); // [in, out]
        return F.linear(x, h.t().to(x.dtype), b?.Value.to(x.dtype)).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(LinearStart start, Generator generator, Device device)
    {
        if (_ownsRule)
        {
            _rule.InitializeRule(_config.PhmCInit, 0.01, 0.01, generator, device);
        }

        if (_ownsW)
        {
            _w.InitializeMatrices(generator, device);
        }

        b?.Zeros(device);
    }
}

/// <summary>What all layers of a Compacter share.</summary>
internal sealed record PhmShared(PhmFactors? Rule, PhmFactors? Down, PhmFactors? Up)
{
    private const string Box = "shared_parameters";

    public static PhmShared Attach(BottleneckConfig config, HubAdapter adapter)
    {
        var hidden = adapter.Model.HiddenSize;
        var width = config.SharedWPhm ? config.Width(hidden, 0) : 0;
        Action<PhmFactors, Generator, Device> drawW = static (factors, generator, device) => factors.InitializeMatrices(generator, device);
        return new PhmShared(
            config.SharedPhmRule ? PhmFactors.Rule(config, "phm_rule").ShareIn(adapter, Box, (factors, generator, device) => factors.InitializeRule(config.PhmCInit, config.PhmInitRange, 1, generator, device)) : null,
            config.SharedWPhm ? PhmFactors.Matrices(config, hidden, width, "W_down").ShareIn(adapter, Box, drawW) : null,
            config.SharedWPhm ? PhmFactors.Matrices(config, width, hidden, "W_up").ShareIn(adapter, Box, drawW) : null);
    }
}

/// <summary>A stack of matrices [d, p, q], or two thinner ones whose product they are.</summary>
internal sealed class PhmFactors
{
    private readonly string _name;
    private readonly Weight _left;
    private readonly Weight? _right;

    private PhmFactors(string name, Weight left, Weight? right) => (_name, _left, _right) = (name, left, right);

    public Tensor Value => _right is null ? _left.Value : _left.Value.bmm(_right.Value);

    public IEnumerable<(string Name, Weight Weight)> State =>
        _right is null ? [(_name, _left)] : [($"{_name}_left", _left), ($"{_name}_right", _right)];

    public static PhmFactors Rule(BottleneckConfig config, string name)
    {
        var (d, learns) = (config.PhmDim, config.LearnPhm);
        return config.FactorizedPhmRule
            ? new PhmFactors(name, new Weight(d, d, 1) { Trainable = learns }, new Weight(d, 1, d) { Trainable = learns })
            : new PhmFactors(name, new Weight(d, d, d) { Trainable = learns }, null);
    }

    public static PhmFactors Matrices(BottleneckConfig config, int inFeatures, int outFeatures, string name)
    {
        var (d, rows, columns) = (config.PhmDim, inFeatures / config.PhmDim, outFeatures / config.PhmDim);
        return config.FactorizedPhmW
            ? new PhmFactors(name, new Weight(d, rows, config.PhmRank) { Trainable = true }, new Weight(d, config.PhmRank, columns) { Trainable = true })
            : new PhmFactors(name, new Weight(d, rows, columns) { Trainable = true }, null);
    }

    /// <summary>The same, kept once for the whole adapter.</summary>
    public PhmFactors ShareIn(HubAdapter adapter, string box, Action<PhmFactors, Generator, Device> initialize)
    {
        var weights = State.Select((state, index) => adapter.Share(
            box, state.Name, () => state.Weight, (_, generator, device) => Once(index, initialize, generator, device))).ToArray();
        return new PhmFactors(_name, weights[0], weights.Length > 1 ? weights[1] : null);
    }

    public void InitializeRule(string kind, double deviation, double bound, Generator generator, Device device)
    {
        foreach (var (_, weight) in State)
        {
            if (kind == "uniform")
            {
                weight.Uniform(bound, generator, device);
            }
            else
            {
                weight.Normal(deviation, generator, device);
            }
        }
    }

    /// <summary>Xavier-normal for each matrix, whatever <c>hypercomplex_nonlinearity</c> says.</summary>
    public void InitializeMatrices(Generator generator, Device device)
    {
        foreach (var (_, weight) in State)
        {
            weight.Normal(Math.Sqrt(2.0 / (weight.Shape[1] + weight.Shape[2])), generator, device);
        }
    }

    private void Once(int index, Action<PhmFactors, Generator, Device> initialize, Generator generator, Device device)
    {
        if (index == 0)
        {
            initialize(this, generator, device);
        }
    }
}
