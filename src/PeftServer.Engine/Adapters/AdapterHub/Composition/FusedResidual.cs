using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub.Composition;

/// <summary>Attention of each token over what the adapters of a place give: softmax(q·k), unscaled.</summary>
internal sealed class FusedResidual : ResidualComposition
{
    private static readonly long[] Adapters = [1];
    private static readonly long[] Widths = [-1];
    private readonly FusionConfig _config;
    private readonly DenseLinear? _query;
    private readonly DenseLinear? _key;
    private readonly DenseLinear? _value;
    private readonly double _dropout;

    public FusedResidual(IReadOnlyList<ResidualPart> parts, FusionConfig config, int hidden, double dropout)
        : base(parts)
    {
        config.Check();
        (_config, _dropout) = (config, config.DropoutProb ?? dropout);
        _query = config.Query ? new DenseLinear(hidden, hidden) : null;
        _key = config.Key ? new DenseLinear(hidden, hidden) : null;
        _value = config.Value ? new DenseLinear(hidden, hidden, hasBias: false) : null;
    }

    /// <summary>The shares of the last call, [n, adapters], when somebody asks for them.</summary>
    public Action<Tensor>? Shares { get; set; }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        new[] { ("query", _query), ("key", _key), ("value", _value) }.Where(entry => entry.Item2 is not null)
            .SelectMany(entry => entry.Item2!.State.Select(state => ($"{entry.Item1}.{state.Name}", state.Weight)));

    /// <summary>V [hidden, hidden]; null where values are not projected.</summary>
    public Weight? ValueWeight => _value?.Weight;

    /// <summary>The last adapter decides what goes in; the query may be the block's own result.</summary>
    public override ResidualInput Enter(Tensor h, in ResidualCall call) => Parts[^1].Enter(h, call) with { Block = h };

    public override Tensor Forward(in ResidualInput input, in ResidualCall call)
    {
        using var scope = NewDisposeScope();
        var ups = new List<Tensor>();
        foreach (var part in Parts)
        {
            ups.Add(part.Up(input, call));
        }

        var skip = input.Skip ?? input.X;
        var given = stack(ups.ToArray(), 1); // [n, A, hidden]
        given = _config.ResidualBefore ? given.Plus(skip.unsqueeze(1)) : given; // keys see it too
        var asked = _config.QueryBeforeLn && !IsParallel ? input.Block! : input.X;
        var query = _query?.Forward(asked) ?? asked; // [n, hidden]
        var keys = _key?.Forward(given) ?? given; // [n, A, hidden]
        var scores = Dropout.Apply(query.unsqueeze(1).mul(keys).sum(Widths), _dropout, call.Batch.Dropout); // [n, A]
        var shares = scores.softmax(-1);
        Shares?.Invoke(shares);
        var values = _config.ValueBeforeSoftmax ? Projected(given) : given;
        var context = shares.unsqueeze(-1).mul(values).sum(Adapters); // [n, hidden]
        context = _config.ValueBeforeSoftmax ? context : Projected(context);
        return (_config.ResidualBefore ? context : context.Plus(skip)).MoveToOuterDisposeScope();
    }

    public override void Initialize(Generator generator, Device device)
    {
        _query?.Initialize(LinearStart.Bert, generator, device);
        _key?.Initialize(LinearStart.Bert, generator, device);
        _value?.Initialize(LinearStart.Bert, generator, device);
        if (_value is not null && _config.ValueInitialized)
        {
            _value.Weight.Fill(1e-6, device);
            using var diagonal = _value.Weight.Value.diagonal();
            diagonal.fill_(TensorArithmetic.One);
        }
    }

    private bool IsParallel => Parts[^1] is Bottleneck { Config.IsParallel: true };

    private Tensor Projected(Tensor x) => _value?.Forward(x) ?? x;
}
