using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Native;

/// <summary>
/// What a GPU can multiply in a second by its vendor's data sheet: dense products (data sheets like to tell twice that, "with sparsity"), 16-bit floats added up in
/// float32. What one in hand reaches is less, since it is clocked by its power.
/// </summary>
public static class PeakFlops
{
    // TFLOP/s in float32, in 16-bit and in 8-bit floats. The first name that the device's contains counts. From NVIDIA's data sheets and architecture papers.
    private static readonly (string Name, double Single, double Half, double Eighth)[] Gpus =
    [
        ("GB200", 80, 2500, 5000),
        ("B300", 75, 2250, 4500),
        ("B200", 75, 2250, 4500),
        ("B100", 60, 1750, 3500),
        ("GH200", 66.9, 989.4, 1978.9),
        ("H200 NVL", 60.3, 835.5, 1671),
        ("H200", 66.9, 989.4, 1978.9),
        ("H100 NVL", 60.3, 835.5, 1671),
        ("H100 PCIe", 51.2, 756.4, 1512.8),
        ("H100", 66.9, 989.4, 1978.9),
        ("H800 PCIe", 51.2, 756.4, 1512.8),
        ("H800", 66.9, 989.4, 1978.9),
        ("H20", 44, 148, 296),
        ("A100", 19.5, 312, 0),
        ("A800", 19.5, 312, 0),
        ("A40", 37.4, 149.7, 0),
        ("A30", 10.3, 165, 0),
        ("A10G", 31.5, 70, 0),
        ("A10", 31.2, 125, 0),
        ("L40S", 91.6, 362.1, 733),
        ("L40", 90.5, 181.1, 362.1),
        ("L4", 30.3, 121, 242),
        ("RTX 6000 Ada", 91.1, 364.2, 728.5),
        ("RTX A6000", 38.7, 154.8, 0),
        ("RTX 5090", 104.8, 209.5, 419),
        ("RTX 4090", 82.6, 165.2, 330.3),
        ("RTX 4080", 48.7, 97.5, 194.9),
        ("RTX 3090", 35.6, 71, 0),
        ("V100", 15.7, 125, 0),
        ("T4", 8.1, 65, 0),
    ];

    /// <summary>
    /// Operations a second of the GPU called <paramref name="name"/> for products with a base in <paramref name="dtype"/>, held as told; null for one that is not
    /// in the table. 4-bit weights are multiplied in the type of the model.
    /// </summary>
    public static double? Of(string name, ScalarType dtype, BaseQuantization quantization = BaseQuantization.None)
    {
        foreach (var gpu in Gpus)
        {
            if (name.Contains(gpu.Name, StringComparison.OrdinalIgnoreCase))
            {
                var tera = quantization is BaseQuantization.Fp8 && gpu.Eighth > 0 ? gpu.Eighth : dtype is ScalarType.Float32 ? gpu.Single : gpu.Half;
                return tera * 1e12;
            }
        }

        return null;
    }
}
