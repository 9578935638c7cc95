namespace PeftServer.Engine.Adapters;

/// <summary>Dropout whose draws come from the step's own generator, so that a run can be repeated and resumed.</summary>
internal static class Dropout
{
    /// <summary>x with a share of its values zeroed and the rest scaled up; x itself outside of training.</summary>
    public static Tensor Apply(Tensor x, double share, Generator? generator)
    {
        if (share == 0 || generator is null)
        {
            return x;
        }

        using var keep = (1 - share).ToScalar();
        var mask = rand(x.shape, generator: generator).lt(keep).to(x.dtype, x.device).div(keep); // [n, in]
        return x.mul(mask);
    }
}
