"""The ops that a SavedModel may hold without being trusted: TensorFlow's ordinary mathematics, name by name.

A list and not a rule: of some 1,900 ops that TensorFlow registers, many of those that it calls stateless run code that
they are told, reach files, or belong to training, other devices or TensorFlow's own tests; and an op that a new
TensorFlow brings is refused until it is added here. What TensorFlow registers of each is looked at by the tests.
"""


def _named(names: str) -> frozenset[str]:
    return frozenset(names.split())


VARIABLES = _named(
    """
    VarHandleOp ReadVariableOp AssignVariableOp AssignAddVariableOp AssignSubVariableOp ResourceGather ResourceGatherNd
    VariableShape VarIsInitializedOp DisableCopyOnRead
    """
)
"""These keep their state in memory; the model's weights are read by them."""

CALLING = _named(
    """
    PartitionedCall StatefulPartitionedCall While StatelessWhile If StatelessIf Case StatelessCase
    """
)
"""These run functions of the graph, whose nodes are looked at like all others."""

LISTS = _named(
    """
    EmptyTensorList TensorListConcat TensorListConcatLists TensorListConcatV2 TensorListElementShape
    TensorListFromTensor TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
    TensorListPushBackBatch TensorListReserve TensorListResize TensorListScatter TensorListScatterIntoExistingList
    TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack
    """
)
"""Lists of tensors, which loops fill."""

GRAPH = _named(
    """
    Assert CheckNumerics Const EnsureShape FakeParam Identity IdentityN NoOp Placeholder PlaceholderV2
    PlaceholderWithDefault PreventGradient Snapshot StopGradient
    """
)

ARRAYS = _named(
    """
    ArgMax ArgMin BatchToSpace BatchToSpaceND Bincount Bitcast BroadcastArgs BroadcastGradientArgs BroadcastTo
    Bucketize Cast Concat ConcatOffset ConcatV2 ConjugateTranspose CropAndResize DenseBincount DepthToSpace Diag
    DiagPart DynamicPartition DynamicStitch ExpandDims ExtractImagePatches ExtractVolumePatches Fill Gather
    GatherNd GatherV2 HistogramFixedWidth InTopK InTopKV2 InvertPermutation LinSpace ListDiff LowerBound
    MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3
    MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad NthElement OneHot OnesLike Pack Pad PadV2
    ParallelDynamicStitch Range Rank Reshape Reverse ReverseSequence ReverseV2 Roll ScatterNd Select SelectV2 Shape
    ShapeN Size Slice SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Squeeze StridedSlice TensorScatterAdd
    TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile TopK TopKV2
    Transpose Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex UpperBound Where
    XlaDynamicSlice XlaDynamicUpdateSlice ZerosLike
    """
)

NUMBERS = _named(
    """
    Abs AccumulateNV2 Acos Acosh Add AddN AddV2 All Angle Any ApproximateEqual Asin Asinh Atan Atan2 Atanh BesselI0
    BesselI0e BesselI1 BesselI1e BesselJ0 BesselJ1 BesselK0 BesselK0e BesselK1 BesselK1e BesselY0 BesselY1 Betainc
    BitwiseAnd BitwiseOr BitwiseXor Ceil ClipByValue Complex ComplexAbs Conj Cos Cosh Cross Cumprod Cumsum
    CumulativeLogsumexp Dawsn Digamma Div DivNoNan Equal Erf Erfc Erfinv EuclideanNorm Exp Expint Expm1 Floor FloorDiv
    FloorMod FresnelCos FresnelSin Greater GreaterEqual Igamma Igammac Imag Inv Invert IsFinite IsInf IsNan LeftShift
    Less LessEqual Lgamma Log Log1p LogicalAnd LogicalNot LogicalOr Max Maximum Mean Min Minimum Mod Mul MulNoNan Ndtri
    Neg NextAfter NotEqual Polygamma PopulationCount Pow Prod Real RealDiv Reciprocal RightShift Rint Round Rsqrt
    SegmentMax SegmentMaxV2 SegmentMean SegmentMin SegmentMinV2 SegmentProd SegmentProdV2 SegmentSum SegmentSumV2
    Sigmoid Sign Sin Sinh Spence Sqrt Square SquaredDifference Sub Sum Tan Tanh TruncateDiv TruncateMod
    UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Xdivy Xlog1py Xlogy Zeta
    """
)

LINEAR_ALGEBRA = _named(
    """
    BandedTriangularSolve BatchMatMul BatchMatMulV2 BatchMatMulV3 Cholesky Eig Einsum FFT FFT2D FFT3D FFTND IFFT IFFT2D
    IFFT3D IFFTND IRFFT IRFFT2D IRFFT3D IRFFTND LogMatrixDeterminant Lu MatMul MatrixDeterminant MatrixExponential
    MatrixInverse MatrixLogarithm MatrixSolve MatrixSolveLs MatrixSquareRoot MatrixTriangularSolve Qr RFFT RFFT2D RFFT3D
    RFFTND SelfAdjointEig SelfAdjointEigV2 Svd TridiagonalMatMul TridiagonalSolve
    """
)

LAYERS = _named(
    """
    AdjustContrast AdjustContrastv2 AdjustHue AdjustSaturation AudioSpectrogram AvgPool AvgPool3D BiasAdd BiasAddV1
    BlockLSTM BlockLSTMV2 CTCGreedyDecoder CTCLoss CTCLossV2 CombinedNonMaxSuppression Conv Conv2D Conv2DBackpropInput
    Conv2DBackpropInputV2 Conv3D Conv3DBackpropInput Conv3DBackpropInputV2 DepthwiseConv2dNative
    DepthwiseConv2dNativeBackpropInput Dequantize Dilation2D Elu FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 GRUBlockCell HSVToRGB
    ImageProjectiveTransformV2 ImageProjectiveTransformV3 L2Loss LRN LSTMBlockCell LeakyRelu LogSoftmax MaxPool
    MaxPool3D MaxPoolV2 MaxPoolWithArgmax Mfcc NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionV3
    NonMaxSuppressionV4 NonMaxSuppressionV5 NonMaxSuppressionWithOverlaps QuantizeAndDequantize QuantizeAndDequantizeV2
    QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeV2 RGBToHSV Relu Relu6 ResizeArea ResizeBicubic
    ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate Selu Softmax SoftmaxCrossEntropyWithLogits Softplus Softsign
    SparseSoftmaxCrossEntropyWithLogits
    """
)

SPARSE = _named(
    """
    RaggedGather RaggedRange RaggedTensorToSparse RaggedTensorToTensor SparseAdd SparseBincount SparseConcat
    SparseDenseCwiseAdd SparseDenseCwiseDiv SparseDenseCwiseMul SparseFillEmptyRows SparseReduceMax
    SparseReduceMaxSparse SparseReduceSum SparseReduceSumSparse SparseReorder SparseReshape SparseSegmentMean
    SparseSegmentMeanWithNumSegments SparseSegmentSqrtN SparseSegmentSqrtNWithNumSegments SparseSegmentSum
    SparseSegmentSumWithNumSegments SparseSlice SparseSoftmax SparseSparseMaximum SparseSparseMinimum SparseSplit
    SparseTensorDenseAdd SparseTensorDenseMatMul SparseToDense
    """
)

SEEDED = _named(
    """
    RandomIndexShuffle StatelessMultinomial StatelessParameterizedTruncatedNormal StatelessRandomBinomial
    StatelessRandomGammaV2 StatelessRandomGammaV3 StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg
    StatelessRandomNormal StatelessRandomNormalV2 StatelessRandomPoisson StatelessRandomUniform
    StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 StatelessRandomUniformInt StatelessRandomUniformIntV2
    StatelessRandomUniformV2 StatelessShuffle StatelessTruncatedNormal StatelessTruncatedNormalV2
    """
)
"""Random numbers that follow from a seed they take."""

COMPUTING = VARIABLES | CALLING | LISTS | GRAPH | ARRAYS | NUMBERS | LINEAR_ALGEBRA | LAYERS | SPARSE | SEEDED
