using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Lora;

/// <summary>
/// What an adapter takes out of the frozen weight: W is used as W − s·L·R, or W − E. The weight itself stays, since other adapters share it.
/// </summary>
internal sealed class BaseShift
{
    private readonly Weight? _left; // (out, r)
    private readonly Weight? _right; // (r, in)
    private readonly Weight? _whole; // (out, in)
    private readonly KeptScalar _scale;

    private BaseShift(Weight? left, Weight? right, Weight? whole, double scale) =>
        (_left, _right, _whole, _scale) = (left, right, whole, new KeptScalar(scale));

    public IEnumerable<Weight> Weights => new[] { _left, _right, _whole }.OfType<Weight>();

    public bool IsLoaded => Weights.All(weight => weight.IsLoaded);

    /// <summary>L [out, r] and R [r, in]; null where the whole of E is kept.</summary>
    public (Weight Left, Weight Right)? Factors => _left is null || _right is null ? null : (_left, _right);

    public static BaseShift OfRank(Projection site, int r, double scale) =>
        new(new Weight(site.OutFeatures, r), new Weight(r, site.InFeatures), null, scale);

    public static BaseShift Whole(Projection site) => new(null, null, new Weight(site.OutFeatures, site.InFeatures), 1);

    public void Set(Tensor left, Tensor right)
    {
        _left!.Set(left.clone());
        _right!.Set(right.clone());
    }

    public void Set(Tensor whole) => _whole!.Set(whole.clone());

    /// <summary>What the frozen product loses: [n, out].</summary>
    public Tensor Apply(Tensor x) => _whole is null
        ? F.linear(F.linear(x, _right!.Value.to(x.dtype)).mul(_scale), _left!.Value.to(x.dtype))
        : F.linear(x, _whole.Value.to(x.dtype));

    /// <summary>s·L·R or E: [out, in].</summary>
    public Tensor Dense() => _whole is null
        ? _left!.Value.to(ScalarType.Float32).mm(_right!.Value.to(ScalarType.Float32)).mul(_scale)
        : _whole.Value.to(ScalarType.Float32);
}
